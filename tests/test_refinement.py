"""What a refinement says of itself: changes, table, JSON."""

import pytest
import torch
from torch import nn

import feedback_adapter as fa
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
