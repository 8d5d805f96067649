"""Choosing pivots: by default, and from what is known alone."""

import pytest
import torch
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError, OptionsError
from feedback_adapter.strategies.selection import Hidden

LABELS = [f"label{i}" for i in range(8)]


class Cause(nn.Module):
    """All labels follow from one hidden cause in `middle`; `late` holds them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Linear(6, 1, bias=False)
        self.middle = nn.Linear(1, 8, bias=False)
        self.late = nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.middle.weight.fill_(1.0)
            self.late.weight.copy_(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.late(self.middle(self.early(x)))


@pytest.fixture
def adapter() -> fa.Adapter:
    return fa.wrap(Cause(), labels=LABELS)


def evidence(batch: int) -> fa.Labels:
    return fa.Labels([dict.fromkeys(LABELS[:6], i % 2) for i in range(batch)])


def test_it_chooses_the_site_whose_refinement_predicts_what_is_hidden(adapter):
    images = torch.randn(10, 6)
    choice = adapter.choose_pivots(images, evidence(10), pivots=["early", "middle"], steps=5)
    assert choice.chosen.pivot == "early"  # at `middle` each label moves for itself
    gains = {pivot: max(t.gain for t in choice.trials if t.pivot == pivot)
             for pivot in ("early", "middle")}  # fmt: skip
    assert gains["early"] > 0.01
    assert gains["middle"] == pytest.approx(0, abs=1e-6)
    result = adapter.refine(images, evidence(10), **choice.arguments)
    assert (result.losses[-1] < result.losses[0]).all()
    truth = torch.tensor([1.0, -1.0] * 5)[:, None] * -1
    moved = (result.after - result.before)[:, 6:] * truth
    assert (moved > 0).all()


def test_what_is_hidden_has_no_influence(adapter):
    images = torch.randn(4, 6)
    plain = adapter.predict(images)
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, 3:6] = True
    outputs = adapter.read(plain)
    runs = []
    for value in (0, 1):
        rows = [{**dict.fromkeys(LABELS[:3], 1), **dict.fromkeys(LABELS[3:6], value)}] * 4
        bound = fa.Labels(rows).bind(adapter.outputs, 4)
        hidden = Hidden(bound, outputs, {"output": mask})
        assert torch.equal(hidden.known(outputs)["output"].sum(1), torch.full((4,), 3))
        runs.append(adapter.refine(images, hidden, pivots="early", patience=None).after)
    assert torch.equal(*runs)


def test_the_gain_is_that_of_the_hidden_variables(adapter):
    outputs = adapter.read(torch.zeros(2, 8))
    bound = fa.Labels(dict.fromkeys(LABELS[:4], 1)).bind(adapter.outputs, 2)
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[:, 2:4] = True
    hidden = Hidden(bound, outputs, {"output": mask})
    better = adapter.read(torch.full((2, 8), 1.0))
    each = torch.tensor(2.0).log() + torch.tensor(1.0).sigmoid().log()
    assert torch.allclose(hidden.gain(better), 2 * each.expand(2))


def test_the_cheapest_of_those_as_good_is_chosen(adapter):
    choice = adapter.choose_pivots(
        torch.randn(6, 6), evidence(6), pivots=["early"], steps=8, tolerance=1.0
    )
    assert choice.chosen.steps == 1
    assert [t.gain for t in choice.trials] == sorted((t.gain for t in choice.trials), reverse=True)


def test_the_choice_repeats(adapter):
    images = torch.randn(6, 6)
    first, second = (adapter.choose_pivots(images, evidence(6), steps=3) for _ in range(2))
    assert first.trials == second.trials
    assert first.chosen == second.chosen


def test_nothing_to_hide_is_a_named_error(adapter):
    with pytest.raises(EvidenceError, match="at least two variables"):
        adapter.choose_pivots(torch.randn(2, 6), fa.Labels({"label0": 1}), steps=1)


@pytest.mark.parametrize("hide", [0, 1, -0.5])
def test_hide_out_of_range(adapter, hide):
    with pytest.raises(OptionsError, match="hide="):
        adapter.choose_pivots(torch.randn(2, 6), evidence(2), hide=hide)
