"""A bad row disturbs nobody else, and a run that is started again makes what is missing."""

import gc
import json
import os
import tracemalloc
import weakref
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import feedback_adapter as fa
from fa_batch import prepare
from fa_batch.manifest import MANIFEST, OtherRequestError
from fa_batch.progress import progress_of
from fa_batch.results import Results, schema_of
from fa_batch.shard import _refine, shard_path
from feedback_adapter.errors import FeedbackAdapterError
from feedback_adapter.testing import tiny_adapter, tiny_images


@pytest.fixture
def job(photos, checkpoint, tmp_path):
    """`job()`: nine photos in shards of four; `job(steps=1)` with other options."""
    folder, table = photos(9), tmp_path / "known.csv"
    table.write_text("file,dog\n" + "".join(f"p{i}.png,{i % 2}\n" for i in range(9)))

    def made(out: Path = tmp_path / "out", shard_size: int = 4, **options):
        return prepare(
            folder, out, checkpoint=str(checkpoint), evidence=table, options=options,
            shard_size=shard_size, batch=3,
        )  # fmt: skip

    return made


def numbers(frame: pd.DataFrame) -> np.ndarray:
    return frame.set_index("id").filter(like=":").to_numpy(float)


def test_bad_rows_have_an_error_and_the_others_what_they_get_alone(photos, checkpoint, tmp_path):
    folder, table = photos(8), tmp_path / "known.csv"
    good = "file,dog,snow\np0.png,1,\np2.png,0,1\np5.png,,1\n"
    table.write_text(good)
    arguments = {"checkpoint": str(checkpoint), "evidence": table, "batch": 4}
    prepare(folder, tmp_path / "good", **arguments).run()
    right = pd.read_parquet(tmp_path / "good").set_index("id")
    bad = good + "p1.png,yes,\np3.png,1,0,1\np4.png,1,\np4.png,0,\ngone.png,1,\n,1,\n"
    table.write_text(bad)
    (folder / "p6.png").write_bytes((folder / "p6.png").read_bytes()[:60])
    (folder / "p7.png").write_text("not a photo")
    done = prepare(folder, tmp_path / "bad", **arguments).run()
    frame = pd.read_parquet(tmp_path / "bad").set_index("id")
    assert list(frame.index) == [*(f"p{i}.png" for i in range(8)), "gone.png", "line 9"]
    failed = frame[frame["error"].notna()]
    assert (done.rows, done.errors) == (10, len(failed)) == (10, 7)
    for name, message in {
        "p1.png": "The column 'dog' is 'yes'", "p3.png": "more cells than there are columns",
        "p4.png": "several lines for 'p4.png'", "p6.png": "can't be read",
        "p7.png": "is not an image", "gone.png": "There is no image 'gone.png'",
        "line 9": "names no image",
    }.items():  # fmt: skip
        assert message in failed.loc[name, "error"]
    assert failed.drop(columns="error").isna().all(axis=None)
    for name in ("p0.png", "p2.png", "p5.png"):
        found = frame.loc[name].drop("strategy").to_numpy(float)
        np.testing.assert_allclose(
            found, right.loc[name].drop("strategy").to_numpy(float), atol=1e-5
        )


def test_bad_lines_of_json(photos, checkpoint, tmp_path):
    folder = photos(3)
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "p0.png", "dog": 1}\n{"file_name": "p1.png", "dog": \n[1]\n'
        '{"file_name": "p2.png", "dog": "maybe"}\n'
    )
    prepare(folder, tmp_path / "out", checkpoint=str(checkpoint)).run()
    frame = pd.read_parquet(tmp_path / "out").set_index("id")
    assert frame["error"].isna().to_dict() == {
        "p0.png": True, "p1.png": True, "p2.png": False, "line 2": False, "line 3": False,
    }  # fmt: skip
    assert "isn't JSON" in frame.loc["line 2", "error"]


def test_an_image_that_fails_in_a_batch_fails_alone():
    adapter, images = tiny_adapter(), tiny_images(3)
    images[1] = torch.nan
    results = Results(["a", "b", "c"], adapter.outputs)
    request = type("Request", (), {"refine": lambda _, a, i, e: a.refine(i, e, steps=1)})()
    known = fa.Labels([{"dog": 1}, {"dog": 1}, {"dog": 0}])
    _refine(adapter, request, results, [0, 1, 2], images, known)
    assert [error is None for error in results.errors] == [True, False, True]
    assert "NaN" in results.errors[1]
    frame = results.table().to_pandas()
    right = adapter.refine(images[2:], fa.Labels({"dog": 0}), steps=1)
    found = frame.loc[2, [f"after:{label}" for label in adapter.labels]].to_numpy(float)
    np.testing.assert_allclose(found, right.after[0].sigmoid(), atol=1e-6)


def test_started_again_it_makes_only_what_is_missing(job, tmp_path):
    ticks = []
    assert job().run(tick=ticks.append).shards == 3
    assert sum(ticks) == 9
    out = tmp_path / "out"
    whole = pd.read_parquet(out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    shard_path(out, 1).write_bytes(shard_path(out, 1).read_bytes()[:-9])  # as a full disk leaves it
    (out / ".shard-000002.parquet.x").write_text("half")  # as a killed worker leaves it
    os.utime(out / ".shard-000002.parquet.x", (0, 0))
    manifest = json.loads((out / MANIFEST).read_text())
    ticks.clear()
    assert job().run(tick=ticks.append).rows == 9
    assert ticks[0] == 5
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    changed = [name for name in after if after[name] != before[name]]
    assert changed == ["shard-000001.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(out), whole)
    assert json.loads((out / MANIFEST).read_text()) == manifest
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, *sorted(before)]


@pytest.mark.slow
def test_processes_make_the_same_rows(job, tmp_path):
    job().run()
    job(tmp_path / "two").run(workers=2)
    one, two = pd.read_parquet(tmp_path / "out"), pd.read_parquet(tmp_path / "two")
    assert one["id"].tolist() == two["id"].tolist()
    np.testing.assert_allclose(numbers(one), numbers(two), atol=1e-6)


def test_the_manifest_says_what_was_asked_and_what_is_done(job, tmp_path):
    job(steps=3).run()
    said = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert said["request"]["options"] == {"steps": 3}
    assert said["request"]["rows"] == 9
    assert len(said["request"]["checkpoint_sha256"]) == 64
    assert said["done"][2] == {"shard": 2, "rows": 1, "errors": 0}
    assert said["labels"]["output"][0] == "dog"


def test_the_schema_is_the_same_for_every_shard(job, tmp_path, checkpoint):
    job().run()
    right = schema_of(fa.load(checkpoint).outputs)
    for shard in range(3):
        found = pq.read_schema(shard_path(tmp_path / "out", shard))
        assert found.remove_metadata().equals(right.remove_metadata())
    names = [*(f"{part}:dog" for part in ("before", "after", "known")), "id", "steps", "error"]
    assert [str(right.field(name).type) for name in names] == [
        "float", "float", "int8", "string", "int32", "string",
    ]  # fmt: skip


def test_another_request_into_the_same_folder_is_refused(job, tmp_path):
    job().run()
    with pytest.raises(OtherRequestError, match=r"options was \{\} and is \{'steps': 1\}"):
        job(steps=1).run()
    with pytest.raises(OtherRequestError, match="shard_size was 4 and is 5"):
        job(shard_size=5).run()
    (tmp_path / "known.csv").write_text("file,dog\np0.png,1\n")
    with pytest.raises(OtherRequestError, match="what is known of them changed"):
        job().run()


def test_memory_does_not_grow_with_the_number_of_images(photos, checkpoint, tmp_path, monkeypatch):
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    stack, most, peak = torch.stack, {}, {}

    def watched(images):
        batch = stack(images)
        alive.add(batch)
        most["now"] = max(most.get("now", 0), len(alive))
        return batch

    monkeypatch.setattr(torch, "stack", watched)
    for count in (8, 64, 512):  # the first warms up
        folder = photos(count, tmp_path / f"photos{count}")
        table = tmp_path / f"{count}.csv"
        table.write_text("file,dog\n" + "".join(f"p{i}.png,1\n" for i in range(count)))
        job = prepare(
            folder, tmp_path / f"out{count}", checkpoint=str(checkpoint), evidence=table,
            shard_size=32, batch=8, options={"steps": 1},
        )  # fmt: skip
        most["now"] = 0
        gc.collect()
        gc.freeze()  # what is there already needn't be looked at each time
        tracemalloc.start()
        job.run(tick=lambda _: gc.collect())
        peak[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        gc.unfreeze()
        most[count] = most["now"]
    assert most[512] <= most[64] + 2
    assert peak[512] - peak[64] < 500 * (512 - 64)  # bytes: names, and not images of 12 kB


def test_the_bar_shows_the_speed_on_a_terminal_and_nothing_elsewhere():
    for terminal in (True, False):
        file = StringIO()
        console = Console(file=file, force_terminal=terminal, width=120)
        with progress_of(console) as advance:
            tick = advance(100)
            tick(40)
            tick(10)
            tick(50)
        assert ("100/100" in file.getvalue()) == terminal
        assert ("images/s" in file.getvalue()) == terminal
        assert terminal or file.getvalue() == ""


def test_the_command(command_line, photos, checkpoint, tmp_path):
    folder, out = photos(3), tmp_path / "out"
    (folder / "p2.png").write_text("not a photo")
    (tmp_path / "known.csv").write_text("file,dog,cat\np0.png,1,1\n")
    words = (
        "batch", folder, "--evidence", tmp_path / "known.csv", "--checkpoint", checkpoint, "--out",
        out, "--strategy", "residual", "--steps", 1,
    )  # fmt: skip
    code, said, complaint = command_line(*words)
    assert (code, said) == (2, "")
    assert "'cat'" in complaint
    code, said, complaint = command_line(*words, "--ignore-unknown")
    assert code == 0
    assert said.startswith("3 images, 1 of them with an error (see the column 'error'): 1 file in")
    assert complaint == "Left out: 1 name isn't a label of the model: 'cat'.\n"
    assert pd.read_parquet(out)["steps"].max() == 1
    assert command_line(*words, "--ignore-unknown")[:2] == (0, said)


COCO_MISTAKES = {
    "no-images": ({"images": None}, "there is no such 'images'"),
    "no-annotations": ({"annotations": 5}, "there is no such 'annotations'"),
    "no-categories": ({"categories": []}, "there is no such 'categories'"),
    "image-9": ({"annotations": [{"image_id": 9, "category_id": 1}]}, "the image_id 9 of annota"),
    "class-9": ({"annotations": [{"image_id": 1, "category_id": 9}]}, "the category_id 9 of"),
    "list-id": ({"annotations": [{"image_id": [], "category_id": 1}]}, "'image_id' is int or str"),
    "nameless": ({"images": [{"id": 1}]}, "images[0] is {'id': 1}, and must be an object whose"),
    "absent": (
        {"images": [{"id": 1, "file_name": "p0.png", "neg_category_ids": [[]]}]},
        "[[]] isn't a list of category ids.",
    ),
}  # fmt: skip


def mistakes(folder: Path) -> list[tuple[list, str]]:
    """Words of the command that can't be done, and what is said."""
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    (folder / "other").mkdir()
    (folder / "other" / "mine.txt").write_text("")
    (folder / "nothing.csv").write_text("file,dog\n")
    (folder / "nameless.csv").write_text("dog,snow\n1,1\n")
    (folder / "twice.csv").write_text("file,dog,dog\np0.png,1,1\n")
    (folder / "blank.csv").write_text("")
    (folder / "list.json").write_text("[]")
    (folder / "latin.csv").write_bytes("file,dög\np0.png,1\n".encode("latin-1"))
    (folder / "broken.parquet").write_text("PAR1")
    (folder / "semicolons.csv").write_text("file;dog\np0.png;1\n")
    (folder / "more.csv").write_text("file,dog,\np0.png,1,2\n")
    (folder / "cut.jsonl").write_text('{"file"')
    (folder / "none.jsonl").write_text("[1]\n")
    coco = {
        "images": [{"id": 1, "file_name": "p0.png"}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1}],
    }
    for name, change in COCO_MISTAKES.items():
        (folder / f"{name}.json").write_text(json.dumps({**coco, **change[0]}))
    photos = folder / "photos"
    return [
        ([folder / "no"], "There is no folder or file"),
        ([folder / "empty"], "There is no image in"),
        ([photos], "Nothing says what is known"),
        ([photos, "--evidence", folder / "no.csv"], "There is no file"),
        ([photos, "--evidence", folder / "file"], "its ending must be one of .csv"),
        ([photos, "--evidence", folder / "nameless.csv"], "no column that names the images"),
        ([photos, "--evidence", folder / "known.csv", "--image-column", "fil"], "mean 'file'"),
        ([photos, "--evidence", folder / "nothing.csv"], "has no line that is about an image"),
        ([photos, "--evidence", folder / "twice.csv"], "different column names"),
        ([photos, "--evidence", folder / "blank.csv"], "different column names"),
        ([photos, "--evidence", folder / "list.json"], "isn't in COCO's format"),
        ([photos, "--evidence", folder / "latin.csv"], "can't be read"),
        ([folder / "broken.parquet"], "can't be read"),
        ([photos, "--evidence", folder / "semicolons.csv"], "by commas, and not by ';'"),
        ([photos, "--evidence", folder / "more.csv"], "cells in a column without a name"),
        ([photos, "--evidence", folder / "cut.jsonl"], "The first one: The line isn't JSON"),
        ([photos, "--evidence", folder / "none.jsonl"], "isn't a JSON object"),
        *(
            ([photos, "--evidence", folder / f"{name}.json"], message)
            for name, (_, message) in COCO_MISTAKES.items()
        ),
        (["--workers", "99999"], "workers=99999 is out of range: it must be from 1 to 1,000."),
        ([folder / "nothing.csv"], "has no line that is about an image"),
        (["--engine", "spark"], "no engine 'spark'"),
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["--shard-size", "0"], "Invalid value for '--shard-size'"),
        (["--strategy", "newtn"], "Did you mean 'newton'"),
        (["--option", "step=2"], "step"),
        (["--steps", "-1"], "steps"),
        (["--pivots", "layer9"], "layer9"),
        (["--checkpoint", "no-such"], "no checkpoint or folder"),
        (["--device", "tpu9"], "can't be moved to"),
        (["--out", folder / "file"], "is a file"),
        (["--out", folder / "file" / "x"], "can't be written"),
        (["--out", folder / "other"], "holds other files"),
        (["--out", "/proc/here"], "can't be written"),
    ]


def test_mistakes_are_one_sentence(command_line, photos, checkpoint, tmp_path):
    folder = photos(1)
    (tmp_path / "known.csv").write_text("file,dog\np0.png,1\n")
    right = [
        folder, "--evidence", tmp_path / "known.csv", "--checkpoint", checkpoint, "--out",
        tmp_path / "out",
    ]  # fmt: skip
    for words, message in mistakes(tmp_path):
        if str(words[0]).startswith("--"):
            words = [*right, *words]
        else:
            words = [*words, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
        code, said, complaint = command_line("batch", *words)
        assert (code, said) == (2, ""), words
        assert message in complaint, words
        assert complaint.count("\n") == 1, complaint
        assert "Traceback" not in complaint


def test_where_nothing_could_be_refined_it_is_said(job, tmp_path):
    ready = job()
    for path in (tmp_path / "photos").iterdir():
        path.write_text("gone")
    with pytest.raises(
        FeedbackAdapterError, match="No image could be refined. The first one: .*p0"
    ):
        ready.run()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said_and_leaves_nothing_half_written(job, tmp_path, monkeypatch):
    opened = Path.open

    def full(path, *words, **named):
        return opened(Path("/dev/full") if ".shard" in path.name else path, *words, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FeedbackAdapterError, match="can't be written: No space left on device"):
        job().run()
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MANIFEST]
    assert job().run().rows == 9
