"""What is known of each of many photos, photos some at a time, and photos that can't be read."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import feedback_adapter as fa
from feedback_adapter.cli.evidence_file import Row, read_rows, rows_of
from feedback_adapter.cli.told import Told
from feedback_adapter.errors import EvidenceError


@pytest.fixture
def table(tmp_path):
    """Write a CSV file, and get its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "known.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_rows(table):
    path = table(
        "\ufefffile,dog,know,know_not,know_coarse,text\r\n"
        'a.png,0.5,"snow; ball",water,,"a dog, I think"\r\n'
        "\r\n"
        "sub/b.png,,,,dog|cat,\r\n"
        "c.png\r\n"
    )
    folder = path.parent
    assert read_rows(path) == [
        Row(
            folder / "a.png",
            Told({"snow": 1, "ball": 1, "water": 0, "dog": 0.5}, text="a dog, I think"),
        ),
        Row(folder / "sub/b.png", Told(coarse=("dog", "cat"))),
        Row(folder / "c.png", Told()),
    ]


def test_a_spreadsheet_begins_with_capitals_and_ends_with_empty_columns(table):
    path = table("File,dog,Know,,\na.png,1,snow,,\n")
    assert read_rows(path) == [Row(path.parent / "a.png", Told({"snow": 1, "dog": 1}))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'file': it begins with []. The column 'file' names the photo."),
        ("photo,dog\na.png,1\n", "no column 'file': it begins with ['photo', 'dog']."),
        ("file;dog\na.png;1\n", "Columns are separated by commas, and not by ';'."),
        ("file\tdog\na.png\t1\n", "Columns are separated by commas, and not by '\\t'."),
        ("file,dog,dog\na.png,1,0\n", "has two columns 'dog'"),
        ("File,FILE\na.png,1\n", "has two columns 'file'"),
        ("file,,dog\na.png,,1\n", "has a column without a name"),
        ("file,dog\na\0.png,1\n", "line 2 names no photo in the column 'file'"),
        (
            "file,known\na.png,dog\n",
            "Words go into the columns 'know', 'know_not', 'know_coarse' and",
        ),
        ("file,dog\n", "has no line after that of the column names"),
        ("file,dog\n,1\n", "line 2 names no photo in the column 'file'"),
        ("file,dog\na.png,1,1\n", "line 2 has 3 cells for 2 columns"),
        ("file,dog\na.png,yes\n", "line 2: The column 'dog' is 'yes': it must be 1 (there), 0"),
        ("file,dog\na.png,inf\n", "column 'dog' is 'inf'"),
        ("file,dog\na.png,-2\n", "column 'dog' is '-2'"),
        ("file,dog,know\na.png,0,dog\n", "'dog' is said to be there and not to be there"),
        ("file,know,know_not\na.png,dog,dog\n", "'dog' is said to be there and not to be"),
        ('file,dog\n"a.png,1\n', "can't be read as a CSV file in UTF-8: unexpected end of data"),
        (b"file,dog\n\xff.png,1\n", "can't be read as a CSV file in UTF-8"),
    ],
)
def test_mistakes_in_the_file(table, text, message):
    with pytest.raises(EvidenceError) as error:
        read_rows(table(text))
    assert message in str(error.value)
    assert "known.csv" in str(error.value)


def test_files_that_are_none(tmp_path):
    for path, message in ((tmp_path, "isn't a file"), (tmp_path / "no.csv", "No such file")):
        with pytest.raises(EvidenceError, match=message):
            read_rows(path)


@settings(max_examples=150, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.one_of(st.binary(max_size=60), st.text('file,dog\n"01.;|-e٣ ', max_size=60)))
def test_whatever_the_file_holds(table, content):
    for start in (b"", b"file,dog,know,text\n"):
        raw = content if isinstance(content, bytes) else content.encode()
        try:
            rows = read_rows(table(start + raw))
        except EvidenceError:
            continue
        for row in rows:
            assert all(0 <= value <= 1 for value in row.told.labels.values())


def test_rows_find_their_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        Row(Path("x/a.png"), Told({"dog": 1})),
        Row(Path("y/a.png"), Told({"dog": 0})),
        Row(Path("b"), Told()),
    ]
    assert rows_of([Path("y/../x/a.png"), Path("y/a.png")], rows) == rows[:2]
    assert rows_of([Path("elsewhere/b"), Path("c")], rows) == [rows[2], None]
    with pytest.raises(EvidenceError, match="has 2 lines for 'z/a.png'"):
        rows_of([Path("z/a.png")], rows)
    with pytest.raises(EvidenceError, match=r"no line for 'A.PNG'.*Did you mean 'a.png'"):
        rows_of([Path("A.PNG")], rows)


@pytest.mark.parametrize("heading", ["file", "File_Name", "image", "path"])
def test_the_photos_column_has_any_of_the_names_that_batch_knows(table, heading):
    (row,) = read_rows(table(f"{heading},dog,snow,cat\na.png,true,-1,FALSE\n"))
    assert row.told == Told({"dog": 1, "cat": 0}, ("snow",)), "values as in batch"


def test_photos_are_found_as_another_system_writes_their_names(table, tmp_path):
    composed, apart = "caf\u00e9.png", "cafe\u0301.png"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / apart).touch()
    (row,) = read_rows(table(f"file,dog\nphotos\\{composed},1\n"))
    assert row.photo == tmp_path / "photos" / apart
    assert rows_of([Path("elsewhere") / composed], [row]) == [row]


def test_uncertain_counts_half(command_line, checkpoint, photos, tmp_path):
    path = tmp_path / "known.csv"
    path.write_text(f"file,dog\n{photos[0]},-1\n")
    code, out, err = command_line("refine", "-c", checkpoint, "--evidence-file", path, "--json")
    assert (code, err) == (0, "")
    adapter = fa.load(checkpoint)
    half = fa.Labels({"dog": 1}, confidence=0.5)
    right = adapter.refine(adapter.transform.open(photos[0]), half).to_dict(10)
    assert json.loads(out)["images"][0]["losses"] == pytest.approx(
        right["images"][0]["losses"], abs=1e-5
    )


def test_each_photo_has_its_own(command_line, checkpoint, photos, tmp_path):
    path = tmp_path / "known.csv"
    path.write_text(f"file,dog,snow\n{photos[0]},1,\n{photos[1]},,0\n")
    code, out, err = command_line("refine", "-c", checkpoint, "--evidence-file", path, "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)["images"]
    assert [image["file"] for image in said] == list(map(str, photos)), "those that it names"
    adapter = fa.load(checkpoint)
    for photo, known, image in zip(photos, ({"dog": 1}, {"snow": 0}), said, strict=True):
        alone = adapter.refine(adapter.transform.open(photo), fa.Labels(known)).to_dict(10)
        rows = {row["label"]: row for row in image["predictions"]}
        assert {label for label, row in rows.items() if row["known"]} == set(known)
        for row in alone["images"][0]["predictions"]:
            assert rows[row["label"]]["after"] == pytest.approx(row["after"], abs=1e-4)


def test_photos_some_at_a_time_give_the_same(command_line, checkpoint, photos, tmp_path):
    words = ["refine", *photos, *photos, photos[0], "-c", checkpoint, "--know", "dog", "--json"]
    whole = json.loads(command_line(*words)[1])
    code, out, _ = command_line(*words, "--batch", 2)
    parts = json.loads(out)
    assert code == 0
    assert len(parts["images"]) == 5
    for one, other in zip(whole.pop("images"), parts.pop("images"), strict=True):
        assert one["file"] == other["file"]
        for row, same in zip(one["predictions"], other["predictions"], strict=True):
            assert row["label"] == same["label"]
            assert row["after"] == pytest.approx(same["after"], abs=1e-4)
    assert parts == whole


def test_a_photo_that_cannot_be_read_does_not_end_the_run(
    command_line, checkpoint, photos, tmp_path
):
    broken = tmp_path / "broken.jpg"
    broken.write_text("a thousand words")
    words = ["refine", photos[0], broken, photos[1], "-c", checkpoint, "--know", "dog"]
    code, out, err = command_line(*words, "--json", "--save-plot", tmp_path / "p.png")
    assert code == 2
    assert err.startswith("Error: 1 photo can't be read. Photo 2: ")
    assert err.count("\n") == 1
    images = json.loads(out)["images"]
    assert [set(image) >= {"file", "predictions"} for image in images] == [True, False, True]
    assert "is not an image" in images[1]["error"]
    pictures = sorted(path.name for path in tmp_path.glob("p-*.png"))
    assert pictures == ["p-1.png", "p-3.png"]
    code, out, err = command_line("refine", broken, broken, "-c", checkpoint, "--know", "dog")
    assert (code, out) == (2, "")
    assert "is not an image" in err


def test_a_photo_that_may_not_be_read_does_not_end_the_run(
    command_line, checkpoint, photos, tmp_path
):
    locked = tmp_path / "locked.png"
    locked.write_bytes(b"")
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("root may read anything")
    code, out, err = command_line("refine", locked, photos[0], "-c", checkpoint, "--know", "dog")
    assert code == 2
    assert "first.png" in out
    assert "locked.png' can't be read: you may not read it." in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "0"], "Invalid value for '--batch'"),
        (["--batch", "-2"], "Invalid value for '--batch'"),
        (["--evidence-file", "no.csv"], "--evidence-file 'no.csv' can't be read"),
        (["--evidence-file", "/dev/null"], "isn't a file"),
    ],
)
def test_mistakes(command_line, checkpoint, photos, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command_line("refine", photos[0], "-c", checkpoint, "--know", "dog", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_column_that_is_no_label(command_line, checkpoint, photos, tmp_path):
    path = tmp_path / "known.csv"
    path.write_text(f"file,Dog,dgo\n{photos[0]},1,1\n")
    code, _, err = command_line("refine", "-c", checkpoint, "--evidence-file", path)
    assert code == 2
    assert "no label 'dgo'. Did you mean 'dog'?" in err
