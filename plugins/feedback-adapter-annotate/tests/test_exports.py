"""What other programs read of the answers is what was said."""

import csv
import json
import os
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from fa_annotate.answers import Answers
from fa_annotate.errors import AnnotateError
from fa_annotate.exports import export, label_config, photo_file

LABELS = ["dog", 'hat "big", <new>\n', "café", "train"]
PHOTOS = ["test-1.jpg", "b/ü\n2 [x] 100%.PNG", "日本.jpg", "never answered.jpg"]


@pytest.fixture
def said(tmp_path):
    """A folder of photos, answers to three of them, and where to write."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for number, name in enumerate(PHOTOS):
        pixels = np.full((4 + number, 8, 3), 60 * number, np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 0 else 1  # the first one is shown turned
        Image.fromarray(pixels).save(folder / name, exif=exif)
    with Answers.open(folder) as answers:
        first, second, third, _ = PHOTOS
        answers.append(first, "label", LABELS[1], 1)
        answers.append(first, "label", "dog", 0)
        answers.append(first, "label", "train", 1)
        answers.undo()
        answers.append(second, "skip", "dog", True)
        answers.append(second, "label", "of another model", 1)
        answers.append(second, "coarse", "", ["animal", "food"])
        answers.append(second, "click", "road", [0.5, 0.25, 1])
        answers.append(third, "text", "", "a dog\nwith a 帽子")
        answers.append(third, "label", "dog", 1)
        answers.append(third, "label", "café", 1)
        yield answers, folder, tmp_path / "out"


def test_coco_has_every_documented_field(said):
    answers, folder, out = said
    found = json.loads(export(answers, LABELS, "coco", folder, out).read_text())
    assert set(found) == {"info", "licenses", "images", "annotations", "categories"}
    names = {c["id"]: c["name"] for c in found["categories"]}
    assert list(names.values()) == [*LABELS, "of another model"]
    images = {image["id"]: image for image in found["images"]}
    assert [i["file_name"] for i in images.values()] == PHOTOS[:3]
    assert [(i["width"], i["height"]) for i in images.values()] == [(4, 8), (8, 5), (8, 6)]
    absent = [[names[c] for c in i["neg_category_ids"]] for i in images.values()]
    assert absent == [["dog"], [], []]
    present = [
        (images[a["image_id"]]["file_name"], names[a["category_id"]]) for a in found["annotations"]
    ]
    first, second, third, _ = PHOTOS
    assert present == [
        (first, LABELS[1]), (second, "of another model"), (third, "dog"), (third, "café"),
    ]  # fmt: skip
    assert [a["id"] for a in found["annotations"]] == [1, 2, 3, 4]
    for annotation in found["annotations"]:
        image = images[annotation["image_id"]]
        width, height = image["width"], image["height"]
        assert annotation["bbox"] == [0, 0, width, height]
        assert annotation["area"] == width * height
        assert annotation["iscrowd"] == 0
        (polygon,) = annotation["segmentation"]
        assert polygon == [0, 0, width, 0, width, height, 0, height]
    assert images[2]["coarse"] == {"": ["animal", "food"]}
    assert images[2]["clicks"] == [{"name": "road", "value": [0.5, 0.25, 1]}]
    assert images[3]["text"] == "a dog\nwith a 帽子"
    assert "text" not in images[1]


def test_csv_has_1_0_or_nothing(said):
    answers, folder, out = said
    with export(answers, LABELS, "csv", folder, out).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", *LABELS, "of another model"]
    first, second, third, _ = PHOTOS
    assert rows == [
        [first, "0", "1", "", "", ""],
        [second, "", "", "", "", "1"],
        [third, "1", "", "1", "", ""],
    ]


def test_csv_names_files_by_their_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    with Answers.open(tmp_path) as answers:
        answers.append(name, "label", "dog", 1)
        found = export(answers, ["dog"], "csv", tmp_path, tmp_path / "a.csv").read_bytes()
    assert found == b"image,dog\r\ncaf\xe9.jpg,1\r\n"


def test_label_studio_gets_what_its_configuration_names(said):
    answers, folder, out = said
    tasks = json.loads(export(answers, LABELS, "label-studio", folder, out).read_text())
    config = ET.fromstring(label_config(LABELS))
    image = config.find("Image")
    controls = {node.get("name"): node for node in config if node.get("toName")}
    assert image.get("value") == "$image"
    for control in ("present", "absent"):
        assert [c.get("value") for c in controls[control]] == LABELS
    for task in tasks:
        (annotation,) = task["annotations"]
        for item in annotation["result"]:
            assert item["to_name"] == controls[item["from_name"]].get("toName") == "image"
            assert item["type"] == controls[item["from_name"]].tag.lower()
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=test-1.jpg",
        "/data/local-files/?d=b/%C3%BC%0A2%20%5Bx%5D%20100%25.PNG",
        "/data/local-files/?d=%E6%97%A5%E6%9C%AC.jpg",
    ]
    values = [
        {item["from_name"]: item["value"] for item in task["annotations"][0]["result"]}
        for task in tasks
    ]
    assert values == [
        {"present": {"choices": [LABELS[1]]}, "absent": {"choices": ["dog"]}},
        {"present": {"choices": ["of another model"]}},
        {"present": {"choices": ["dog", "café"]}, "text": {"text": ["a dog\nwith a 帽子"]}},
    ]


def test_hugging_face_loads_the_imagefolder(said, tmp_path):
    datasets = pytest.importorskip("datasets")
    answers, folder, out = said
    export(answers, LABELS, "imagefolder", folder, out)
    cache = str(tmp_path / "cache")
    found = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=cache)
    assert list(found) == ["train"]
    rows = sorted(found["train"], key=lambda row: PHOTOS.index(row["name"]))
    assert [row["name"] for row in rows] == PHOTOS[:3]
    assert [row["image"].size for row in rows] == [(4, 8), (8, 5), (8, 6)]
    assert [row["present"] for row in rows] == [[LABELS[1]], ["of another model"], ["dog", "café"]]
    assert [row["absent"] for row in rows] == [["dog"], [], []]
    assert [row["text"] for row in rows] == ["", "", "a dog\nwith a 帽子"]


@pytest.mark.parametrize("format", ["coco", "csv", "label-studio", "imagefolder"])
def test_an_export_is_whole_or_not_there(said, format, monkeypatch):
    answers, folder, out = said
    export(answers, LABELS, format, folder, out)
    if format == "imagefolder":
        with pytest.raises(AnnotateError, match="must be new or empty"):
            export(answers, LABELS, format, folder, out)
    else:
        whole = out.read_bytes()
        export(answers, LABELS, format, folder, out)
        assert out.read_bytes() == whole
    assert {path.name for path in out.parent.iterdir()} == {"photos", "out"}
    with pytest.raises(AnnotateError, match="can't be exported to"):
        export(answers, LABELS, format, folder, out.parent / "missing" / "out")


@pytest.mark.parametrize("format", ["coco", "imagefolder"])
def test_a_photo_that_is_gone_is_named(said, format):
    answers, folder, out = said
    (folder / "日本.jpg").unlink()
    with pytest.raises(AnnotateError, match="'日本.jpg' is no photo in"):
        export(answers, LABELS, format, folder, out)
    assert {path.name for path in out.parent.iterdir()} == {"photos"}


def test_a_format_that_is_unknown_gets_near_names(said):
    answers, folder, out = said
    with pytest.raises(AnnotateError, match="'cocoa'. Did you mean 'coco'"):
        export(answers, LABELS, "cocoa", folder, out)


def test_only_photos_of_the_folder_are_read(said):
    _, folder, _ = said
    outside = folder.parent / "secret.jpg"
    outside.write_bytes(b"x")
    (folder / "link.jpg").symlink_to(outside)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "inside.jpg").symlink_to("test-1.jpg")
    outside_or_none = ["../secret.jpg", str(outside), "link.jpg", "loop.jpg", "b", "", "b/../.."]
    for name in (*outside_or_none, "a\0b", "x" * 5000):
        with pytest.raises(AnnotateError, match="is no photo in"):
            photo_file(folder, name)
    assert photo_file(folder, "inside.jpg").name == "test-1.jpg"
    assert photo_file(folder, "b/../test-1.jpg").name == "test-1.jpg"
