"""Choosing pivots: by default, and from what is known alone."""

import pytest
import torch
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError, OptionsError
from feedback_adapter.pivot_search.hidden import (
    Hidden,
    average_precision,
    hide,
    likelihood,
    precision,
)

LABELS = [f"label{i}" for i in range(8)]


class Cause(nn.Module):
    """All labels follow from one hidden cause in `middle`; `late` holds them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Linear(6, 1, bias=False)
        self.same = nn.Linear(1, 1, bias=False)
        self.middle = nn.Linear(1, 8, bias=False)
        self.late = nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.same.weight.fill_(1.0)
            self.middle.weight.fill_(1.0)
            self.late.weight.copy_(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.late(self.middle(self.same(self.early(x))))


@pytest.fixture
def adapter() -> fa.Adapter:
    return fa.wrap(Cause(), labels=LABELS)


def evidence(batch: int) -> fa.Labels:
    return fa.Labels([dict.fromkeys(LABELS[:6], i % 2) for i in range(batch)])


def test_it_chooses_the_site_whose_refinement_predicts_what_is_hidden(adapter):
    images = torch.randn(40, 6)
    choice = adapter.choose_pivots(images, evidence(40), pivots=["early", "middle"], steps=5)
    assert repr(choice).startswith("Choice(strategy='residual', pivots='early', step_size=")
    assert "% mean average precision, of" in repr(choice)
    assert choice.chosen.pivot == "early"  # at `middle` each label moves for itself
    gains = {pivot: max(t.gain for t in choice.trials if t.pivot == pivot)
             for pivot in ("early", "middle")}  # fmt: skip
    assert gains["early"] > 0.01
    assert gains["middle"] == pytest.approx(0, abs=1e-6)
    result = adapter.refine(images, evidence(40), **choice.arguments)
    assert (result.losses[-1] < result.losses[0]).all()
    truth = torch.tensor([1.0, -1.0] * 20)[:, None] * -1
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


def test_the_latest_site_that_can_not_be_told_from_the_best_is_chosen(adapter):
    images = torch.randn(40, 6)
    choice = adapter.choose_pivots(
        images, evidence(40), pivots=["early", "same"], steps=4, tolerance=1
    )
    assert choice.chosen.pivot == "same"
    trials = [trial for trial in choice.trials if trial.pivot == "same"]
    assert choice.chosen == max(trials, key=lambda trial: trial.gain)
    assert choice.trials[0].error == 0
    assert [t.gain for t in choice.trials] == sorted((t.gain for t in choice.trials), reverse=True)
    loose = adapter.choose_pivots(
        images, evidence(40), pivots=["early", "middle"], steps=4, tolerance=1e9
    )
    assert loose.chosen.pivot == "middle"  # everything passes as equal, and it is the latest


def test_settings_that_are_clearly_behind_leave_the_race(adapter):
    images, arguments = torch.randn(64, 6), {"pivots": ["early", "middle"], "steps": 4}
    whole = adapter.choose_pivots(images, evidence(64), batch=64, **arguments)
    race = adapter.choose_pivots(images, evidence(64), batch=16, **arguments)
    assert len(race.trials) < len(whole.trials) == 2 * 4 * 4
    assert race.chosen == whole.chosen
    assert race.trials[0].gain == pytest.approx(whole.trials[0].gain)


def test_a_shift_of_a_label_in_all_images_is_worth_nats_but_no_precision(adapter):
    plain = adapter.read(torch.randn(50, 8))
    rows = [dict.fromkeys(LABELS, float(i % 10 == 0)) for i in range(50)]
    hidden = hide(fa.Labels(rows).bind(adapter.outputs, 50), plain, 0.5, seed=0)
    rare = adapter.read(plain["output"] - torch.arange(1.0, 9.0) / 8)
    assert likelihood(hidden)(rare).mean() > 0.1
    assert torch.equal(precision(hidden)(rare), torch.zeros(8).double())
    truth = torch.tensor([[float(i % 10 == 0)] for i in range(50)])
    right = adapter.read(plain["output"] + 20 * truth)
    ranked = precision(hidden)
    assert ranked(right).shape == (8,)
    best = 100 - ranked(adapter.read(plain["output"] * 0 + truth))
    torch.testing.assert_close(ranked(right) + best, torch.full((8,), 100.0).double())


def test_average_precision_is_scikit_learns():
    from sklearn.metrics import average_precision_score

    scores, truth = torch.randn(50, 7), torch.rand(50, 7) < 0.3
    counts = torch.rand(50, 7) < 0.6
    ours = average_precision(scores.masked_fill(~counts, -torch.inf), truth & counts)
    for label in range(7):
        of = counts[:, label]
        theirs = average_precision_score(truth[of, label], scores[of, label])
        assert float(ours[label]) == pytest.approx(theirs, abs=1e-12)


def test_the_default_step_sizes_are_around_the_checkpoints_own():
    own = fa.Defaults("residual", "auto", {"solver": "gradient", "step_size": 10.0})
    adapter = fa.Adapter(Cause(), {"output": fa.Output(tuple(LABELS))}, defaults=own)
    images = torch.randn(10, 6)
    choice = adapter.choose_pivots(images, evidence(10), pivots=["early"], steps=1)
    assert {t.step_size for t in choice.trials} <= {1.0, 3.0, 10.0, 30.0}
    assert choice.chosen.step_size >= 1


def test_the_choice_repeats(adapter):
    images = torch.randn(6, 6)
    first, second = (adapter.choose_pivots(images, evidence(6), steps=3) for _ in range(2))
    assert first.trials == second.trials
    assert first.chosen == second.chosen


def test_nothing_to_hide_is_a_named_error(adapter):
    with pytest.raises(EvidenceError, match=r"at least two variables.*output: \(2, 8\)"):
        adapter.choose_pivots(torch.randn(2, 6), fa.Labels({"label0": 1}), steps=1)


@pytest.mark.parametrize("hide", [0, 1, -0.5])
def test_hide_out_of_range(adapter, hide):
    with pytest.raises(OptionsError, match="hide="):
        adapter.choose_pivots(torch.randn(2, 6), evidence(2), hide=hide)


def test_precision_needs_labels_that_differ(adapter):
    same = fa.Labels(dict.fromkeys(LABELS[:4], 1))
    with pytest.raises(EvidenceError, match="criterion='precision' needs labels"):
        adapter.choose_pivots(torch.randn(4, 6), same, steps=1, criterion="precision")
    choice = adapter.choose_pivots(torch.randn(4, 6), same, steps=1)
    assert choice.criterion == "likelihood"


def test_a_strategy_that_takes_no_steps_is_a_named_error(adapter):
    with pytest.raises(OptionsError, match="'posterior' takes no steps"):
        adapter.choose_pivots(torch.randn(4, 6), evidence(4), strategy="posterior")
