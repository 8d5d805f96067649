"""The strategy `backward` on a small net with random parameters."""

import pytest
import torch

import feedback_adapter as fa
from fa_backward import BackwardError, Place
from fa_backward.net import GenerativeNet, build
from fa_backward.plugin import feedback_adapter_strategies
from fa_backward.queries import choose, modes
from fa_backward.search import Hypotheses
from feedback_adapter.errors import CheckpointError
from feedback_adapter.testing import check_strategy, tiny_adapter

LABELS = ("plane", "ship", "vehicle")
KWARGS = {
    "layers": [[4, 3, True], [6, 3, True], [5, 3, False]],
    "categories": list(LABELS),
    "side": 16,
    "sites": [1],
    "templates": 6,
    "components": 2,
    "search": {
        "zooms": [1.0], "halves": False, "reach": [0, 0], "shares": [1, 1, 0.5],
        "evidence": [True, True, True],
    },
}  # fmt: skip


def adapter():
    torch.manual_seed(0)
    net = build("generative", KWARGS)
    templates = net.activations.templates
    templates.logit.normal_()
    templates.mean.uniform_(0, 2)
    templates.category.copy_(torch.tensor([0, 0, 1, 1, 2, 2]))
    own = templates.category[None] == torch.arange(3)[:, None]
    templates.log_prior.copy_((own / own.sum(1, keepdim=True)).log())
    return fa.wrap(net.eval(), labels=LABELS, kind="multilabel")


def images(n=4):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def some(batch):
    """Evidence about all images but number 2."""
    facts = [{"plane": 1}, {"ship": 0}, {}, {"plane": 1, "vehicle": 0}]
    return fa.Labels([facts[i % 4] for i in range(batch)])


def test_the_strategy_keeps_its_promises():
    (spec,) = feedback_adapter_strategies()
    check_strategy(spec, adapter=adapter(), images=images(), evidence=some, pivots=["net.top"])


def test_place_changes_what_is_unknown():
    left = adapter().refine(images(), Place("left"), strategy="backward")
    right = adapter().refine(images(), Place("right"), strategy="backward")
    assert not torch.allclose(left.after, right.after)


def test_place_makes_it_the_default():
    assert adapter().refine(images(), Place("left")).strategy == "backward"
    assert adapter().refine(images(), fa.Labels({"plane": 1})).strategy != "backward"


def test_a_status_says_where_a_place_is_of_no_use():
    searched, nothing = "searched the whole image once", "nothing is known of it"
    told = Place(["left", None, None, "right"]) & fa.Labels([None, None, {"ship": 0}, {"ship": 0}])
    result = adapter().refine(images(), told, strategy="backward")
    assert result.status == (searched, nothing, searched, searched)
    assert torch.equal(result.after[1], result.before[1])
    result = adapter().refine(images(), Place("left"), strategy="newton")
    assert torch.equal(result.after, result.before)
    assert set(result.status) == {Place.silence}


def test_other_models_are_named():
    plain = tiny_adapter()
    with pytest.raises(BackwardError, match="TinyNet"):
        plain.refine(torch.rand(2, 3, 16, 16), fa.Labels({plain.labels[0]: 1}), strategy="backward")


def test_a_config_builds_nothing_else():
    with pytest.raises(CheckpointError, match="no net 'os'"):
        build("os", {})
    with pytest.raises(CheckpointError, match="can't build"):
        build("generative", {"layers": []})
    assert isinstance(build("generative", KWARGS), GenerativeNet)


def hypotheses():
    """Three objects: large and dark on the left, small in the middle, bright on the right."""
    mask = torch.zeros(4, 8, 12)
    mask[0, 1:7, 0:5] = 1
    mask[1, 1:7, 0:5] = 1  # the same object again
    mask[2, 3:5, 5:7] = 1
    mask[3, 2:6, 9:12] = 1
    bright = torch.tensor([0.3, 0.3, 0.5, 0.9])
    zero = torch.zeros(4, 2, dtype=torch.long)
    return Hypotheses(
        torch.tensor([9.0, 8.0, 7.0, -1.0]), torch.zeros(4, 3), zero[:, 0], zero, zero, zero[None],
        (), mask, mask, mask[:, None] * bright[:, None, None, None].expand(4, 3, 1, 1),
    )  # fmt: skip


def test_choices_among_modes():
    found = hypotheses()
    assert modes(found) == [0, 2, 3]
    assert choose(found, "best") == choose(found, "leftmost") == choose(found, "largest") == 0
    assert choose(found, "darkest") == 0
    assert choose(found, "rightmost") == choose(found, "smallest") == 2  # 3 is below the floor
    assert choose(found, "rightmost", floor=-2) == choose(found, "brightest", floor=-2) == 3
    with pytest.raises(BackwardError, match="best, leftmost"):
        choose(found, "reddest")
