"""One pass over the images: what is opened and run how often, and that answers are exact."""

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from fa_evaluate.passes import Case, refine_all, unrefined_logits
from feedback_adapter.errors import OptionsError

LABELS = ("dog", "snow", "ball")


@pytest.fixture
def counted():
    """An adapter, and a list with an entry for each forward pass through its first layer."""
    calls = []

    class First(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    model = nn.Sequential(First(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    return fa.wrap(model.eval(), labels=LABELS), calls


class Photos:
    """Images that note which of them are asked for."""

    def __init__(self, images):
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.asked += rows.tolist()
        return self.images[rows]


def case(name, truth, known, **arguments):
    return Case(name, lambda rows: fa.Labels.from_tensors(truth[rows], known), arguments)


def test_every_photo_is_opened_once_and_runs_once_for_each_choice_of_pivots(counted):
    adapter, calls = counted
    images, truth = torch.randn(10, 4), torch.rand(10, 3) < 0.5
    first, both = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    cases = [
        case("a", truth, first, strategy="residual", pivots="1", steps=3, step_size=0.2),
        case("b", truth, both, strategy="newton", pivots=["1"]),
        case("c", truth, both, strategy="residual", pivots=("1",), steps=3, step_size=0.2),
        case("d", truth, first, strategy="newton", pivots="3"),
    ]
    refine_all(adapter, images, cases, batch=4)  # the first time, each pivot is looked at
    calls.clear()
    photos, notes = Photos(images), []
    before, answers = refine_all(adapter, photos, cases, batch=4, progress=notes.append)
    assert photos.asked == list(range(10))
    assert calls == [4, 4, 4, 4, 2, 2]  # two choices of pivots
    assert notes[:2] == ["images 1 to 4 of 10, reading", "images 1 to 4 of 10, a"]
    torch.testing.assert_close(before.value["output"], adapter.predict(images))
    for own, answer in zip(cases, answers, strict=True):
        for rows in torch.arange(10).split(4):
            alone = adapter.refine(images[rows], own.evidence(rows), **own.arguments)
            assert torch.equal(answer.value["output"][rows], alone.outputs_after["output"])
        assert answer.seconds > 0


def test_without_cases_the_unrefined_model_is_measured(counted):
    adapter, calls = counted
    images = torch.randn(5, 4)
    before, answers = refine_all(adapter, images, [], batch=2)
    assert (answers, calls) == ([], [2, 2, 1])
    expected = adapter.predict(images)
    torch.testing.assert_close(before.value["output"], expected)
    torch.testing.assert_close(torch.from_numpy(unrefined_logits(adapter, images)), expected)
    with pytest.raises(OptionsError, match="batch=0"):
        refine_all(adapter, images, [], batch=0)
