"""`feedback-adapter refine --explain`: the table, the JSON and the picture of an explanation."""

import json

import pytest
import torch
from typer.testing import CliRunner

import feedback_adapter as fa
from feedback_adapter.cli import app


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "100"})


@pytest.fixture
def command(checkpoint, photos):
    return ["refine", *photos, "-c", checkpoint, "--know", "dog", "--know-not", "snow",
            "--strategy", "newton", "--explain", "grass"]  # fmt: skip


def test_tables_of_every_photo(command, photos):
    result = run(*command, "--text", "a red thing")
    assert result.exit_code == 0, result.output
    assert result.output.count("Why 'grass' moved from") == 2
    for evidence in ("dog", "no snow", "Text: a red thing"):
        assert result.output.count(f"│ {evidence} ") >= 2


def test_json_has_what_python_says(command, photos, checkpoint):
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    described = json.loads(result.output)["images"]
    adapter = fa.load(checkpoint)
    known = fa.Labels({"dog": 1, "snow": 0})
    images = torch.cat([adapter.transform.open(photo) for photo in photos])
    refined = adapter.refine(images, known, strategy="newton", explainable=True)
    for index, entry in enumerate(described):
        expected = refined.explain("grass", index).to_dict()
        assert entry["explanation"]["contributions"] == expected["contributions"]
        assert entry["explanation"]["schema"] == 1
        height, width = len(expected["maps"]["change"]), len(expected["maps"]["change"][0])
        assert (height, width) == (3, 4)


def test_the_picture_is_that_of_the_explanation(command, tmp_path):
    result = run(*command, "--save-plot", tmp_path / "why.svg")
    assert result.exit_code == 0, result.output
    for number in (1, 2):
        assert "in nats of log-odds" in (tmp_path / f"why-{number}.svg").read_text()


@pytest.mark.parametrize(
    ("label", "message"),
    [("gras", "Did you mean 'grass'?"), ("dog", "'dog' is told of every photo")],
)
def test_mistakes_are_named(command, label, message):
    result = run(*command, "--explain", label)
    assert result.exit_code == 1
    assert message in str(result.exception)


def test_photos_of_which_the_label_is_told_are_left_out(photos, checkpoint, tmp_path):
    known = tmp_path / "known.csv"
    known.write_text(f"file,dog,grass\n{photos[0]},1,\n{photos[1]},,1\n")
    words = ["refine", "--evidence-file", known, "-c", checkpoint, "--explain", "grass"]
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    first, second = (entry["explanation"] for entry in json.loads(result.output)["images"])
    assert [row["evidence"] for row in first["contributions"]] == ["dog"]
    assert "'grass' is told" in second["error"]
    assert "No explanation: 'grass' is told" in run(*words).output
