"""What a refinement says of itself: changes, table, JSON."""

import doctest

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter import batches, options, refinement
from feedback_adapter.batches import in_batches, split
from feedback_adapter.errors import InputError, OptionsError
from feedback_adapter.testing import LABELS, tiny_adapter, tiny_images


def test_changes_table_and_json():
    result = tiny_adapter().refine(tiny_images(2), fa.Labels({"dog": 1}), steps=3)
    known, *unknown = result.changes(1)
    assert (known.label, known.known) == ("dog", True)
    assert known.before == pytest.approx(float(result.before[1, 1].sigmoid()))
    assert known.after > known.before
    moves = [abs(change.after - change.before) for change in unknown]
    assert moves == sorted(moves, reverse=True)
    assert {change.label for change in unknown} == set(LABELS) - {"dog"}
    assert len(result.changes(1, top=2)) == 3
    described = result.to_dict(top=1)
    assert described["strategy"] == "newton"
    assert described["images"][0]["losses"] == pytest.approx(result.losses[:, 0].tolist(), abs=1e-5)
    assert described["images"][1]["predictions"][0]["label"] == "dog"
    table = result.table(top=2)
    assert table.count("known") == 2
    assert "image 1" in table


def test_labels_with_brackets_are_shown_as_they_are():
    adapter = fa.wrap(nn.Flatten(), labels=["a [red] one", "[/b]"])
    result = adapter.refine(torch.zeros(1, 2), fa.Labels({"[/b]": 1}), pivots="input")
    assert "a [red] one" in result.table()
    assert "[/b]" in result.table()


def test_parts_joined_are_the_whole():
    adapter, images = tiny_adapter(), tiny_images(5)
    told = fa.Labels([{"dog": i % 2} for i in range(5)]).bind(adapter.outputs, 5)
    arguments = {"strategy": "residual", "steps": 4, "trace": True}
    whole = adapter.refine(images, told, **arguments)
    joined = in_batches(
        lambda rows: adapter.refine(images[rows], told.take(rows), **arguments), 5, 2
    )
    torch.testing.assert_close(joined.after, whole.after, atol=1e-6, rtol=0)
    torch.testing.assert_close(joined.losses, whole.losses, atol=1e-6, rtol=0)
    torch.testing.assert_close(joined.trace, whole.trace, atol=1e-6, rtol=0)
    assert joined.status == whole.status
    assert torch.equal(joined.steps, whole.steps)
    assert torch.equal(joined.known["output"], whole.known["output"])
    rows = torch.tensor([3, 0])
    some = whole.take(rows)
    assert torch.equal(some.after, whole.after[rows])
    assert torch.equal(some.loss, whole.loss[rows])
    assert some.status == (whole.status[3], whole.status[0])
    assert torch.equal(some.images, whole.images[rows])
    unrefined = in_batches(lambda rows: adapter.unrefined(images[rows]), 5, 2)
    torch.testing.assert_close(unrefined["output"], whole.before, atol=1e-6, rtol=0)


def test_parts_with_other_numbers_of_steps_are_filled_up():
    adapter, images = tiny_adapter(), tiny_images(2)
    short, long = (
        adapter.refine(images[i : i + 1], fa.Labels({"dog": 1}), strategy=name, steps=steps)
        for i, (name, steps) in enumerate([("newton", 1), ("residual", 3)])
    )
    both = fa.Refinement.cat([short, long])
    assert both.losses.shape == (4, 2)
    assert both.strategy == "newton, residual"
    assert torch.equal(both.loss, torch.cat([short.loss, long.loss]))
    assert torch.equal(both.losses[1:, 0], short.losses[-1:, 0].expand(3))


def test_batches_that_cannot_be():
    with pytest.raises(OptionsError, match="batch=0 is out of range"):
        split(3, 0)
    with pytest.raises(InputError, match="no image"):
        in_batches(lambda rows: rows, 0)


@pytest.mark.parametrize("module", [batches, options, refinement], ids=lambda m: m.__name__)
def test_examples_run(module):
    tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried.attempted > 0
    assert tried.failed == 0
