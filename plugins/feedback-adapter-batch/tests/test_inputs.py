"""Whatever the data set's form, each image gets the result that `refine` gives it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

import feedback_adapter as fa
from fa_batch import prepare
from feedback_adapter.cli.told import Told, evidence_of, told
from feedback_adapter.errors import DataError, EvidenceError

KNOWN = [{"dog": 1}, {"dog": 0, "snow": 1}, {}, {"person": 1, "dog": 1}]
CSV = "file,dog,snow,person\np0.png,1,,\np1.png,0,1,\np2.png,,,\np3.png,1,,1\n"


def refined(images: Path, checkpoint: Path, out: Path, **arguments) -> pd.DataFrame:
    prepare(images, out, checkpoint=str(checkpoint), **arguments).run()
    return pd.read_parquet(out)


def check(frame: pd.DataFrame, checkpoint: Path, photos: Path, known=KNOWN) -> None:
    """The rows are those of `refine`, in order."""
    adapter = fa.load(checkpoint)
    files = [photos / f"p{i}.png" for i in range(len(known))]
    right = adapter.refine(adapter.transform.open(*files), fa.Labels(known))
    assert frame["error"].isna().all()
    for part, logits in (("before", right.before), ("after", right.after)):
        found = frame[[f"{part}:{label}" for label in adapter.labels]].to_numpy()
        np.testing.assert_allclose(found, logits.sigmoid().numpy(), atol=1e-6)
    told = frame[[f"known:{label}" for label in adapter.labels]]
    expected = [[row.get(label, np.nan) for label in adapter.labels] for row in known]
    np.testing.assert_array_equal(told.to_numpy(float), np.array(expected, float))
    np.testing.assert_allclose(frame["loss"], right.loss, atol=1e-6)
    assert frame["steps"].tolist() == right.steps.tolist()
    assert frame["strategy"].tolist() == list(right.strategies)


def coco() -> dict:
    names = ["dog", "snow", "person"]
    return {
        "images": [
            {"id": 7 - i, "file_name": f"p{i}.png", "neg_category_ids": [1] if i == 1 else []}
            for i in range(4)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 1, 1]]},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "segmentation": {"counts": "x", "size": [1]},
            },
            {"id": 3, "image_id": 6, "category_id": 2, "segmentation": []},
            {"id": 4, "image_id": 4, "category_id": 3, "segmentation": []},
            {"id": 5, "image_id": 4, "category_id": 1, "segmentation": []},
        ],
    }


@pytest.mark.parametrize("form", ["csv", "csv, names only", "csv, absolute", "coco", "parquet"])
def test_a_folder_and_a_table(form, photos, checkpoint, tmp_path):
    folder = photos(4)
    if form == "coco":
        table = tmp_path / "instances.json"
        table.write_text(json.dumps(coco()))
    elif form == "parquet":
        table = tmp_path / "known.parquet"
        rows = [{"path": f"./p{i}.png", **row} for i, row in enumerate(KNOWN)]
        pd.DataFrame(rows[::-1]).to_parquet(table)
    else:
        table = tmp_path / "known.csv"
        names = {"csv": "p", "csv, absolute": f"{folder}/p", "csv, names only": "p"}[form]
        text = CSV.replace("\np", f"\n{names}").replace(".png", "" if "only" in form else ".png")
        table.write_text("\ufeff" + text)  # as Excel writes it
    frame = refined(folder, checkpoint, tmp_path / "out", evidence=table, shard_size=3)
    assert frame["id"].tolist() == [f"p{i}.png" for i in range(4)]
    check(frame, checkpoint, folder)


def test_names_as_another_system_writes_them(photos, checkpoint, tmp_path):
    folder = photos(4)
    (folder / "p3.png").rename(folder / "caf\u00e9.png")
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "known.csv"
    here = f"../{folder.relative_to(tmp_path)}"
    table.write_text(
        f"file,dog\n.\\p0.png,1\n{here}/p1.png,0\n{here}\\p2.png,1\ncafe\u0301.png,1\n".replace(
            "/", "\\"
        ),
        encoding="utf-8",
    )
    frame = refined(folder, checkpoint, tmp_path / "out", evidence=table)
    told = dict(zip(frame["id"], frame["known:dog"], strict=True))
    assert told == {"p0.png": 1, "p1.png": 0, "p2.png": 1, "caf\u00e9.png": 1}


def test_an_imagefolder_with_metadata(photos, checkpoint, tmp_path):
    folder = photos(4)
    lines = [
        {"file_name": "p0.png", "present": ["dog"], "absent": [], "text": "", "name": "x.png"},
        {"file_name": "p1.png", "dog": 0, "snow": True},
        {"file_name": "p2.png", "dog": None},
        {"file_name": "p3.png", "know": "person; dog"},
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    frame = refined(folder, checkpoint, tmp_path / "out")
    check(frame, checkpoint, folder)


@pytest.mark.parametrize("form", ["bytes", "datasets", "paths", "parts"])
def test_parquet_that_holds_or_names_images(form, photos, checkpoint, tmp_path):
    folder = photos(4)
    content = [(folder / f"p{i}.png").read_bytes() for i in range(4)]
    columns = {label: [row.get(label) for row in KNOWN] for label in ("dog", "snow", "person")}
    place = tmp_path / "data.parquet"
    if form == "bytes":
        pq.write_table(pa.table({"image": pa.array(content, pa.binary()), **columns}), place)
    elif form == "paths":
        place = folder / "data.parquet"
        pq.write_table(pa.table({"path": [f"p{i}.png" for i in range(4)], **columns}), place)
    else:
        pictures = [{"bytes": it, "path": f"p{i}.png"} for i, it in enumerate(content)]
        kinds = Features({"image": ImageFeature(), **dict.fromkeys(columns, Value("int64"))})
        data = Dataset.from_dict({"image": pictures, **columns}, features=kinds)
        if form == "parts":
            place = tmp_path / "parts"
            (place / "data").mkdir(parents=True)
            for part in range(2):
                data.shard(2, part).to_parquet(place / "data" / f"train-{part}-of-2.parquet")
        else:
            data.to_parquet(place)
    frame = refined(place, checkpoint, tmp_path / "out")
    check(frame, checkpoint, folder)
    names = (
        [f"line {i + 1}" for i in range(4)] if form == "bytes" else [f"p{i}.png" for i in range(4)]
    )
    assert frame["id"].tolist() == names


def test_folders_within_the_folder_and_exif_orientation(checkpoint, tmp_path):
    folder = tmp_path / "photos"
    (folder / "train" / "a b").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (20, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "train" / "a b" / "turned[1].png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1).copy()).save(folder / "upright.PNG")
    (folder / "notes.txt").write_text("no photo")
    (tmp_path / "known.csv").write_text("file,dog\ntrain/a b/turned[1].png,1\nupright.PNG,1\n")
    frame = refined(folder, checkpoint, tmp_path / "out", evidence=tmp_path / "known.csv")
    assert frame["id"].tolist() == ["train/a b/turned[1].png", "upright.PNG"]
    turned, upright = frame.filter(like=":").to_numpy(float)
    np.testing.assert_allclose(turned, upright, atol=1e-6)
    image = {"bytes": (folder / "train" / "a b" / "turned[1].png").read_bytes(), "path": None}
    kinds = Features({"image": ImageFeature(), "dog": Value("int64")})
    Dataset.from_dict({"image": [image], "dog": [1]}, features=kinds).to_parquet(
        tmp_path / "x.parquet"
    )
    held = refined(tmp_path / "x.parquet", checkpoint, tmp_path / "out2")
    np.testing.assert_allclose(held.filter(like=":").to_numpy(float)[0], upright, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("0", 0), (" 0.25 ", 0.25), ("True", 1), (False, 0), (1.0, 1), ("1.0", 1)],
)
def test_cells_say_how_far_a_label_holds(cell, value):
    assert told({"dog": cell}) == Told({"dog": value})


@pytest.mark.parametrize("cell", ["", None, float("nan"), "NaN", "  "])
def test_empty_cells_say_nothing(cell):
    assert told({"dog": cell, "know": cell if cell != "NaN" else None}) == Told()


@pytest.mark.parametrize("cell", [-1, "-1", "-1.0", -1.0])
def test_minus_one_is_uncertain_and_counts_half(cell):
    known = told({"dog": cell, "snow": "0"})
    assert known == Told({"snow": 0}, uncertain=("dog",))
    adapter = fa.wrap(torch.nn.Flatten(), labels=["dog", "snow"], kind="multilabel")
    outputs = adapter.unrefined(torch.tensor([[-1.0, 1.0]]))
    certain = fa.Labels({"dog": 1}).loss(outputs)
    assert evidence_of([Told({}, ("dog",))]).loss(outputs) == pytest.approx(float(certain) / 2)
    both = evidence_of([known]).loss(outputs)
    assert both == pytest.approx(float(certain) / 2 + float(fa.Labels({"snow": 0}).loss(outputs)))


@pytest.mark.parametrize("cell", ["yes", "2", "-0.5", "-2", "inf", [1], {}])
def test_other_cells_are_refused(cell):
    with pytest.raises(EvidenceError, match=r"column 'dog' is .*: it must be 1 \(there\), 0"):
        told({"dog": cell})


def test_lists_and_texts_are_evidence():
    known = told({"know": ["dog"], "absent": "snow;person", "know_coarse": "a|b", "text": " hi "})
    assert known == Told({"dog": 1, "snow": 0, "person": 0}, (), ("a", "b"), "hi")
    with pytest.raises(EvidenceError, match="'dog' is said to be there and not to be there"):
        told({"know": ["dog"], "dog": 0})
    with pytest.raises(EvidenceError, match="it must hold names"):
        told({"labels": [1, 2]})
    assert told({"know": ["dog", "cat"], "fur": "x"}, ignored={"cat", "fur"}) == Told({"dog": 1})


def test_a_spreadsheet_ends_with_empty_columns(photos, checkpoint, tmp_path):
    (tmp_path / "known.csv").write_text("file,dog,,\np0.png,1,,\n")
    frame = refined(photos(1), checkpoint, tmp_path / "out", evidence=tmp_path / "known.csv")
    assert frame["known:dog"].tolist() == [1]
    assert frame["error"].isna().all()


def test_labels_of_others_are_listed_once_with_near_names(photos, checkpoint, tmp_path):
    folder, table = photos(2), tmp_path / "known.csv"
    table.write_text("file,dog,Traffic_lights,trafic ligth,Sex,know\np0.png,1,1,1,F,snows;zebra\n")
    arguments = {"evidence": table, "checkpoint": str(checkpoint)}
    with pytest.raises(EvidenceError) as raised:
        prepare(folder, tmp_path / "out", **arguments)
    said = str(raised.value)
    assert "3 names aren't labels of the model" in said
    assert "'trafic ligth' (near: traffic light), 'Sex'" in said
    assert "'zebra'" in said
    assert "--ignore-unknown" in said
    job = prepare(folder, tmp_path / "out", ignore_unknown=True, **arguments)
    assert job.task.request.ignored == ("trafic ligth", "Sex", "zebra")
    job.run()
    frame = pd.read_parquet(tmp_path / "out")
    assert frame.filter(like="known:").loc[0].dropna().to_dict() == {
        "known:dog": 1, "known:snow": 1, "known:traffic light": 1,
    }  # fmt: skip
    table.write_text("file,cat,zebra\np0.png,1,1\n")
    with pytest.raises(EvidenceError, match="says nothing of any label of the model"):
        prepare(folder, tmp_path / "out", ignore_unknown=True, **arguments)


def test_a_table_that_is_about_other_images(photos, checkpoint, tmp_path):
    (tmp_path / "known.csv").write_text("file,dog\nold/q.png,1\n")
    with pytest.raises(DataError, match="No line of .* is about an image of .*'old/q.png'.*p0"):
        prepare(
            photos(1), tmp_path / "out", checkpoint=str(checkpoint), evidence=tmp_path / "known.csv"
        )
