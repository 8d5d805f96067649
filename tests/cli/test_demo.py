"""The demo: three real photos, what a person would know, and which moves were right."""

import json

import pytest
from PIL import Image

from feedback_adapter.changes import Change, moved_right
from feedback_adapter.cli.photos import PHOTOS

pytest.importorskip("skimage", reason="the demo's photos come with scikit-image")
pytest.importorskip("feedback_adapter_zoo", reason="the demo's checkpoints are the zoo's")


def test_three_photos_get_better(command_line, tmp_path):
    code, out, err = command_line("demo", "--out", tmp_path, "--json")
    assert (code, err) == (0, "")
    astronaut, brick, rocket = json.loads(out)["photos"]
    assert (astronaut["strategy"], brick["strategy"]) == ("newton", "posterior")
    for photo, told, goal in ((astronaut, "woman", 0.9), (brick, "wall", 1.0)):
        rows = {row["label"]: row for row in photo["predictions"]}
        assert rows[told]["known"]
        assert rows[told]["after"] > (0.99 if told == "woman" else 0.9), "a caption may err"
        marks = [row["right"] for row in rows.values() if row["right"] is not None]
        assert len(marks) == 10
        assert sum(marks) / len(marks) >= goal
        assert f"{sum(marks)} right, {10 - sum(marks)} wrong" in photo["why"]
    rows = {row["label"]: row for row in brick["predictions"]}
    assert rows["soccer"]["before"] > 0.6, "so a wall of bricks looks to the network"
    assert rows["soccer"]["after"] < 0.4
    assert "Knowing its caption, " in brick["why"]
    rows = {row["label"]: row for row in rocket["predictions"]}
    assert rows["drilling platform"]["before"] > 0.5, "so it looks to ImageNet's network"
    assert rows["drilling platform"]["after"] < 0.001
    assert rows["missile"]["after"] > 0.7
    assert rows["missile"]["right"]
    assert rows["space shuttle"]["right"] is False
    for photo in (astronaut, brick, rocket):
        with Image.open(photo["picture"]) as picture:
            assert min(picture.size) > 400


def test_what_is_true_names_labels_of_the_checkpoint():
    from feedback_adapter.checkpoint import find, read_config

    for photo in PHOTOS:
        labels = read_config(find(photo.checkpoint))["outputs"]["output"]["labels"]
        truth = photo.truth(labels)
        true = {label for label in photo.true.split() if label in labels}
        assert true == {label for label, holds in truth.items() if holds}
        assert len(true) >= 0.9 * len(photo.true.split())
        assert not truth.keys() & photo.known.keys()


@pytest.mark.parametrize(
    ("before", "after", "holds", "right"),
    [(0.1, 0.2, True, True), (0.1, 0.2, False, False), (0.2, 0.1, False, True)],
)
def test_a_move_is_right_towards_the_truth(before, after, holds, right):
    change = Change("output", "dog", before, after, known=False)
    assert moved_right(change, {"dog": holds}) is right
    assert moved_right(change, {"cat": holds}) is None
    told = Change("output", "dog", before, after, known=True, present=True)
    assert moved_right(told, {"dog": holds}) is None
