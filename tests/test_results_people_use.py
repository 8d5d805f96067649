"""Results in the forms that people go on with."""

import csv
import io
import sys

import pandas as pd
import pytest
import torch

import feedback_adapter as fa
from feedback_adapter.errors import FeedbackAdapterError, ModelError
from feedback_adapter.testing import tiny_adapter, tiny_images

TOLD = fa.Labels([{"cat": 1}, {"dog": 0, "snow": None}, None])


@pytest.fixture
def result():
    return tiny_adapter().refine(tiny_images(3), TOLD, strategy="residual", pivots="block")


def test_probabilities_are_those_of_after(result):
    torch.testing.assert_close(result.probabilities, result.after.sigmoid())
    several = tiny_adapter("multiclass", second="multilabel")
    result = several.refine(tiny_images(2), fa.Labels({"cat": 1}), strategy="clamp")
    assert list(result.probabilities) == ["output", "scene"]
    torch.testing.assert_close(result.probabilities["output"], result.after["output"].softmax(1))


def test_a_data_frame_has_a_row_per_image_and_label(result):
    frame = result.to_frame()
    assert list(frame.columns) == [
        "image", "output", "label", "before", "after", "known", "present", "strategy",
    ]  # fmt: skip
    assert len(frame) == 3 * 4
    cat = frame[(frame.image == 0) & (frame.label == "cat")].iloc[0]
    assert (cat.known, cat.present, cat.strategy) == (True, True, "residual")
    assert cat.after == pytest.approx(1, abs=1e-5)
    assert cat.before == pytest.approx(float(result.before[0, 0].sigmoid()))
    dog = frame[(frame.image == 1) & (frame.label == "dog")].iloc[0]
    assert (dog.known, dog.present) == (True, False)
    assert frame[~frame.known].present.isna().all()
    assert isinstance(frame, pd.DataFrame)


def test_without_pandas_an_error_says_so(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(FeedbackAdapterError, match=r"needs pandas.*pip install pandas.*to_csv"):
        result.to_frame()


def test_csv_has_the_same_rows(result, tmp_path):
    text = result.to_csv(tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_bytes().decode() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12
    assert {row["label"] for row in rows} == {"cat", "dog", "snow", "ball"}
    assert [row["known"] for row in rows if row["image"] == "0" and row["label"] == "cat"] == [
        "True"
    ]


def test_a_result_has_a_length_and_a_short_repr(result):
    assert len(result) == 3
    assert len(repr(result)) < 120


def test_every_table_says_strategy_pivots_and_status(result):
    table = result.table()
    assert table.count("residual at block; ") == 3
    assert (
        "clamp; converged"
        in tiny_adapter()
        .refine(tiny_images(1), TOLD.take(torch.tensor([0])), strategy="clamp")
        .table()
    )


def test_an_adapter_moves_with_its_model():
    adapter = tiny_adapter()
    assert adapter.to("cpu") is adapter
    with pytest.raises(ModelError, match="can't be moved to 'nowhere'"):
        adapter.to("nowhere")


@pytest.mark.parametrize("top", [-1, 1.5, float("nan"), "5", True])
def test_how_many_predictions_are_shown_must_be_a_number_of_them(top, tmp_path):
    result = tiny_adapter().refine(tiny_images(2), fa.Labels({"cat": 1}))
    uses = (result.table, result.to_json, result.to_dict, lambda top: result.changes(0, top))
    for use in (*uses, lambda top: result.plot(tmp_path / "x.png", top=top)):
        with pytest.raises(fa.errors.OptionsError, match=r"top=.*a whole number from 0 on"):
            use(top)
