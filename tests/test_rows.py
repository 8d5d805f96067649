"""Some images of a batch: whatever names them, everywhere."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import InputError, OptionsError

IMAGES = torch.rand(4, 3, 8, 8)
LABELS = ["dog", "cat", "bird"]


@pytest.fixture(scope="module")
def adapter():
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)]
    return fa.wrap(nn.Sequential(*layers).eval(), labels=LABELS)


@pytest.fixture(scope="module")
def result(adapter):
    return adapter.refine(IMAGES, fa.Labels({"dog": [1, 0, 1, 0]}))


EVIDENCE = {
    "one list": fa.Labels({"dog": [1, 0, None, 0], "cat": 1}),
    "mappings": fa.Labels([{"dog": 1}, {"dog": 0}, None, {"dog": 0}]),
    "tensors": fa.Labels.from_tensors(torch.eye(4, 3), torch.ones(4, 3) > 0),
    "coarse": fa.Coarse(
        ["pet", None, "pet", "other"], hierarchy={"pet": LABELS[:2], "other": LABELS[2:]}
    ),
    "both": fa.Labels({"dog": [1, 0, 1, 0]}) & fa.Labels([{"cat": 1}, None, None, {"cat": 0}]),
}
CHOICES = {
    "a list": [2, 0], "a tensor": torch.tensor([2, 0]), "an array": np.array([2, 0]),
    "a column": pd.Series([2, 0]), "from the end": [-2, -4], "int32": torch.tensor([2, 0]).int(),
    "a range": range(2, -1, -2), "a slice": slice(2, None, -2),
    "numbers of NumPy": list(np.array([2, 0])),
}  # fmt: skip


@pytest.mark.parametrize("rows", CHOICES.values(), ids=CHOICES)
def test_results_evidence_and_prepared_batches_take_what_names_images(rows, adapter, result):
    assert torch.equal(result.take(rows).after, result.after[[2, 0]])
    assert torch.equal(result.outputs_before.take(rows)["output"], result.before[[2, 0]])
    prepared = adapter.prepare(IMAGES).take(rows)
    assert len(prepared) == prepared.batch == 2
    assert torch.equal(prepared.inputs.images, IMAGES[[2, 0]])
    told = fa.Labels({"dog": 1})
    expected = adapter.refine(IMAGES[[2, 0]], told).after
    assert torch.equal(adapter.refine(prepared, told).after, expected)


@pytest.mark.parametrize("rows", [[2, 0], slice(2, None, -2), np.array([2, 0])])
@pytest.mark.parametrize("told", EVIDENCE.values(), ids=EVIDENCE)
def test_evidence_taken_is_that_of_the_images(told, rows, adapter):
    whole = adapter.refine(IMAGES, told, strategy="clamp").take([2, 0])
    some = adapter.refine(IMAGES[[2, 0]], told.take(rows), strategy="clamp")
    assert torch.equal(some.after, whole.after)
    assert torch.equal(some.losses, whole.losses)


@pytest.mark.parametrize("told", EVIDENCE.values(), ids=EVIDENCE)
def test_true_and_false_choose_images_and_are_no_indices(told, adapter, result):
    mask = torch.tensor([False, True, False, True])
    assert torch.equal(result.take(mask).after, result.after[[1, 3]])
    some = adapter.refine(IMAGES[mask], told.take(mask), strategy="clamp")
    whole = adapter.refine(IMAGES, told, strategy="clamp")
    assert torch.equal(some.after, whole.after[[1, 3]])


@pytest.mark.parametrize(
    "rows",
    [7, [4], [-5], [0.5], "ab", None, torch.tensor([[0]]), torch.tensor(1), [True], {"a": 1}],
    ids=repr,
)
def test_images_that_are_not_there_are_named(rows, adapter, result):
    prepared = adapter.prepare(IMAGES)
    for take in (result.take, result.outputs_after.take, prepared.take, EVIDENCE["both"].take):
        with pytest.raises(InputError, match="image"):
            take(rows)


def test_an_empty_choice_is_a_result_of_none(result):
    assert len(result.take([])) == 0
    assert len(fa.Refinement.cat([result.take([]), result])) == 4


@pytest.mark.parametrize("image", [4, -5, 1.0, "a", None], ids=repr)
def test_tables_and_pictures_of_no_image(image, result, tmp_path):
    for show in (result.changes, lambda i: result.rich_table(5, i)):
        with pytest.raises(InputError, match="image"):
            show(image)
    with pytest.raises(InputError, match="image"):
        result.plot(tmp_path / "a.png", image=image)
    assert result.changes(np.int64(1)) == result.changes(1)


def test_what_can_not_be_joined(adapter, result):
    other = fa.wrap(nn.Linear(2, 2), labels=["a", "b"])
    others = other.refine(torch.ones(2, 2), fa.Labels({"a": 1}), strategy="clamp")
    with pytest.raises(InputError, match="same outputs"):
        fa.Refinement.cat([result, others])
    with pytest.raises(InputError, match="given none"):
        fa.Refinement.cat([])


def test_results_are_compared_and_hashed_as_objects(result):
    again = copy.deepcopy(result)
    assert result != again
    assert len({result, again}) == 2
    assert torch.equal(pickle.loads(pickle.dumps(result)).after, result.after)  # noqa: S301


@pytest.mark.parametrize("how", [copy.deepcopy, pickle.dumps])
def test_a_prepared_batch_is_not_copied(how, adapter):
    with pytest.raises(InputError, match=r"call prepare\(images\) there"):
        how(adapter.prepare(IMAGES))


def test_a_file_that_can_not_be_written(result, tmp_path):
    with pytest.raises(OptionsError, match="can't be written"):
        result.to_csv(tmp_path / "no" / "folder.csv")
