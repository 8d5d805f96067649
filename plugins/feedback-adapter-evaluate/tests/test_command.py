"""`feedback-adapter evaluate`: what it prints and writes, and that a mistake is one message."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LABELS = ("dog", "snow", "ball", "grass", "red", "water")
ROW = {
    "checkpoint", "method", "uses", "baseline", "known", "metric", "value", "sd", "low", "high",
    "images",
}  # fmt: skip


@pytest.fixture(scope="module")
def flickr8k(tmp_path_factory) -> Path:
    """A pack in the layout of Flickr8k's: 12 test images, 3 dev images."""
    folder = tmp_path_factory.mktemp("flickr8k")
    (folder / "images").mkdir()
    random = np.random.default_rng(1)
    captions = {}
    for index in range(15):
        pixels = random.integers(0, 255, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.jpg")
        words = [
            word for i, word in enumerate(LABELS) if (index + i) % 3 == 0 or random.random() < 0.3
        ]
        captions[f"{index}.jpg"] = {
            "split": "dev" if index > 11 else "test",
            "captions": [f"A {' and a '.join(words)} .", "Something else ."],
        }
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


def test_evaluate_json(command_line, checkpoint, flickr8k, tmp_path):
    file = tmp_path / "found" / "partial-labels.json"
    code, out, _ = command_line(
        "evaluate", checkpoint, "--data", flickr8k, "--known", "0,34,100", "--draws", 2, "--json",
        "--out", file, "--flip", "50",
    )  # fmt: skip
    said = json.loads(out)
    assert code == 0
    rows = said["rows"]
    assert said["checkpoint"] == str(checkpoint)
    assert (said["protocol"], said["split"], said["draws"]) == ("partial-labels", "test", 2)
    assert said["seeds"] == [0]
    assert {"python", "torch", "timm"} <= set(said["versions"])
    assert all(set(row) == ROW for row in rows)
    assert {row["images"] for row in rows} == {12}
    names = [
        "residual",
        "layerwise",
        "newton",
        "clamp",
        "residual-reference",
        "layerwise-reference",
    ]
    assert [(row["method"], row["known"]) for row in rows if row["metric"] == "mAP"] == [
        ("unrefined", 0), *((name, known) for name in names for known in (34, 100)),
    ]  # fmt: skip
    assert sum(row["metric"] == "mAP, 50% wrong" for row in rows) == 6
    for row in rows:
        if row["metric"] == "mAP":
            assert 0 < row["value"] <= 100
            assert row["low"] <= row["value"] <= row["high"]
        if row["known"] == 100:
            assert row["sd"] == 0
    assert json.loads(file.read_text()) == said
    table = file.with_suffix(".md").read_text()
    assert "| residual-reference | weights | 100% |" in table


def test_evaluate_options(command_line, checkpoint, flickr8k):
    words = (
        "evaluate", checkpoint, "--data", flickr8k, "--split", "all", "--limit", 9, "--known",
        "100", "--strategy", "residual", "--batch", 4,
    )  # fmt: skip
    code, out, _ = command_line(*words, "--option", "steps=0", "--pivots", "layer2", "--json")
    said = json.loads(out)
    assert (code, said["split"]) == (0, "all")
    none, residual = [row for row in said["rows"] if row["metric"] == "mAP"]
    assert none["images"] == 9
    assert (residual["method"], residual["known"]) == ("residual", 100)
    assert residual["value"] == pytest.approx(none["value"])  # no steps, no change
    again = json.loads(command_line(*words, "--json", "--seed", 5)[1])
    assert again["rows"][0]["value"] != none["value"]  # other halves
    code, out, _ = command_line(*words)
    assert code == 0
    assert "9 images" in out
    assert "100%" in out


def test_evaluate_text(command_line, checkpoint, flickr8k):
    code, out, _ = command_line(
        "evaluate", checkpoint, "--data", flickr8k, "--protocol", "text", "--known", "1",
        "--draws", 1, "--strategy", "residual", "--json",
    )  # fmt: skip
    assert code == 0
    rows = [row for row in json.loads(out)["rows"] if row["metric"] == "mAP"]
    rule = "Bayes' rule per word"
    methods = ["unrefined", rule, "residual", "residual, network alone"]
    assert [row["method"] for row in rows] == methods
    assert [row["known"] for row in rows] == [0, 1, 1, 1]


def test_mistakes(command_line, checkpoint, flickr8k, tmp_path):
    for words, message in [
        (("evaluate", checkpoint, "--data", tmp_path / "no"), "There is no folder"),
        (("evaluate", checkpoint, "--data", flickr8k, "--out", "x.md"), "name a .json file"),
        (("evaluate", checkpoint, "--data", tmp_path), "neither captions.json"),
        (("evaluate", checkpoint, "--data", flickr8k, "--split", "tset"), "Did you mean 'test'"),
        (("evaluate", checkpoint, "--data", flickr8k, "--split", "train"), "No image is in split"),
        (("evaluate", checkpoint, "--data", flickr8k, "--known", "some"), "numbers with commas"),
        (("evaluate", checkpoint, "--data", flickr8k, "--known", "120"), "0 to 100 percent"),
        (("evaluate", checkpoint, "--data", flickr8k, "--draws", "0"), "at least 1"),
        (("evaluate", "no-such", "--data", flickr8k), "no checkpoint or folder"),
        (("evaluate", checkpoint, "--data", flickr8k, "--protocol", "txt"), "Did you mean 'text'"),
        (("evaluate", checkpoint, "--data", flickr8k, "--protocol", "text"), "An image has 2"),
        (("evaluate", checkpoint, "--data", flickr8k, "--protocol", "hierarchy"), "hierarchy to"),
        (("evaluate", checkpoint, "--data", flickr8k, "--source", "coco"), "no data source 'coco'"),
    ]:
        code, out, err = command_line(*words)
        assert (code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--limit", "-1"], "Invalid value for '--limit'"),
        (["--draws", "0"], "draws=0, batch=64, splits=1: each must be at least 1."),
        (["--strategy", "newton-reference"], "'newton' has no published form. "),
        (["--strategy", "newton-reference"], "'residual-reference'"),
        (["--splits", "0"], "at least 1"),
        (["--batch", "0"], "Invalid value for '--batch'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--known", "50,nan"], "0 to 100 percent"),
        (["--known", "150"], "0 to 100 percent"),
        (["--flip", "-5"], "0 to 100 percent"),
        (["--out", "."], "--out '.' can't be written"),
        (["--out", "file/x.json"], "'file' can't be used: File exists."),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    command_line, checkpoint, flickr8k, words, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    code, out, err = command_line("evaluate", checkpoint, "--data", flickr8k, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
