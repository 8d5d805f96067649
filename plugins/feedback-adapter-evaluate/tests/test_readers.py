"""Each layout of each data set, in tiny folders made here."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fa_evaluate.data import LabelledImages, read
from fa_evaluate.data import read_captions as read_any_captions
from fa_evaluate.data.coco_captions import label_weights
from fa_evaluate.data.coco_files import split_of
from fa_evaluate.data.flickr8k import read_captions
from feedback_adapter.errors import DataError

CAPTIONS = {
    "a.jpg": ("train", ["A dog runs .", "Two dogs playing"]),
    "b.jpg": ("dev", ["A boy's red ball"]),
    "c.jpg": ("test", ["Dogs in the snow", "A cat"]),
    "d.jpg": ("none", ["A cat"]),
}
OBJECTS = {"t1.jpg": ("train2014", [0, 2]), "t2.jpg": ("train2014", []), "v1.jpg": ("val2014", [1])}
CLASSES = ["person", "sofa", "dog"]


def jpeg(shade: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 6), shade if mode == "L" else (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_zip(folder: Path, names: list[str]) -> None:
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for index, name in enumerate(names):
            archive.writestr(name, jpeg(10 * index, "L" if index else "RGB"))


def write_folder(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        (folder / name).write_bytes(jpeg(10 * index))


def flickr_pack(folder: Path) -> None:
    entries = {n: {"split": s, "captions": c} for n, (s, c) in CAPTIONS.items()}
    (folder / "captions.json").write_text(json.dumps(entries))
    write_zip(folder, list(CAPTIONS))


def flickr_official(folder: Path) -> None:
    text = folder / "Flickr8k_text"
    text.mkdir()
    lines = [f"{n}#{i}\t{c}" for n, (_, cs) in CAPTIONS.items() for i, c in enumerate(cs)]
    lines.append("never_published.jpg.1#0\tA cat")
    (text / "Flickr8k.token.txt").write_text("\n".join(lines))
    for split in ("train", "dev", "test"):
        names = [n for n, (s, _) in CAPTIONS.items() if s == split]
        (text / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
    write_folder(folder / "Flicker8k_Dataset", list(CAPTIONS))


def coco_pack(folder: Path) -> None:
    entries = {n: {"split": s, "labels": i, "boxes": []} for n, (s, i) in OBJECTS.items()}
    (folder / "annotations.json").write_text(json.dumps(entries))
    classes = [{"index": i, "name": n, "supercategory": "x"} for i, n in enumerate(CLASSES)]
    (folder / "classes.json").write_text(json.dumps(classes))
    write_zip(folder, list(OBJECTS))


def coco_official(folder: Path) -> None:
    (folder / "annotations").mkdir()
    ids = [1, 63, 18]  # COCO's own are not contiguous, nor in the order of the file
    categories = [
        {"id": i, "name": n} for i, n in zip(ids, ["person", "couch", "dog"], strict=True)
    ]
    for split in ("train2014", "val2014"):
        names = [n for n, (s, _) in OBJECTS.items() if s == split]
        images = [{"id": 100 + i, "file_name": n} for i, n in enumerate(names)]
        annotations = [
            {"image_id": 100 + i, "category_id": ids[c]}
            for i, n in enumerate(names)
            for c in OBJECTS[n][1] * 2  # two of each in the image
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        write_folder(folder / split, names)


@pytest.mark.parametrize("layout", [flickr_pack, flickr_official])
def test_caption_words(layout, tmp_path: Path) -> None:
    pytest.importorskip("simplemma", reason="simplemma is not installed")
    layout(tmp_path)
    data = read(tmp_path, ["cat", "dog", "play"], "caption-words")
    assert data.names == tuple(CAPTIONS)
    assert data.split == ("train", "dev", "test", "none")
    assert data.targets.tolist() == [
        [False, True, True], [False, False, False], [True, True, False], [True, False, False],
    ]  # fmt: skip
    assert [data.open(i).mode for i in range(4)] == ["RGB"] * 4
    assert data.open(0).size == (8, 6)


@pytest.mark.parametrize("layout", [coco_pack, coco_official])
@pytest.mark.parametrize("sofa", ["sofa", "couch"])
def test_coco_objects(layout, sofa: str, tmp_path: Path) -> None:
    layout(tmp_path)
    data = read(tmp_path, ["dog", sofa], "coco-objects")
    assert data.labels == ("dog", sofa)
    found = dict(zip(data.names, data.targets.tolist(), strict=True))
    assert found == {"t1.jpg": [True, False], "t2.jpg": [False, False], "v1.jpg": [False, True]}
    assert data.subset("test").names == ("v1.jpg",)
    assert data.open(data.names.index("v1.jpg")).mode == "RGB"


def test_coco_dev_is_a_tenth_and_depends_on_the_name_only() -> None:
    names = [f"COCO_train2014_{i:012d}.jpg" for i in range(5000)]
    dev = [n for n in names if split_of(n, "train2014") == "dev"]
    assert 400 < len(dev) < 600
    assert split_of(dev[0], "val2014") == "test"


def test_subset() -> None:
    data = LabelledImages(
        ("a", "b", "c"), ("train", "dev", "none"), ("x",), np.ones((3, 1), dtype=bool),
        lambda name: Image.new("RGB", (1, 1)),
    )  # fmt: skip
    assert data.subset("dev").names == ("b",)
    assert data.subset("all") is data
    assert data.select([2, 0]).names == ("c", "a")
    with pytest.raises(DataError, match="No image is in split 'test'"):
        data.subset("test")
    with pytest.raises(DataError, match="Did you mean 'train'"):
        data.subset("trian")


@pytest.mark.parametrize(
    ("source", "found"), [("caption-words", "captions.json"), ("coco-objects", "instances_")]
)
def test_what_was_looked_for_is_said(source: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=found):
        read(tmp_path, None, source)
    with pytest.raises(DataError, match="no folder"):
        read(tmp_path / "absent", None, source)


def test_bad_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'coco-objects'"):
        read(tmp_path, None, "coco-object")
    coco_pack(tmp_path)
    with pytest.raises(DataError, match=r"no object 'dogg'.*'dog'"):
        read(tmp_path, ["dogg"], "coco-objects")
    data = read(tmp_path, None, "coco-objects")
    write_zip(tmp_path, ["t1.jpg"])
    with pytest.raises(DataError, match=r"'v1\.jpg' can't be read"):
        read(tmp_path, None, "coco-objects").open(data.names.index("v1.jpg"))
    (tmp_path / "images.zip").unlink()
    with pytest.raises(DataError, match=r"images\.zip and images/"):
        read(tmp_path, None, "coco-objects")
    (tmp_path / "annotations.json").write_text('{"t1.jpg": {"split": "train2014"}}')
    with pytest.raises(DataError, match="'labels'"):
        read(tmp_path, None, "coco-objects")


def test_a_missing_photo_of_an_official_split_is_named(tmp_path: Path) -> None:
    flickr_official(tmp_path)
    (tmp_path / "Flicker8k_Dataset" / "c.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 .* 'c\.jpg'"):
        read_captions(tmp_path)


def test_flickr8k_pack_of_this_project(data_dir: Callable[[str], Path]) -> None:
    data = read_captions(data_dir("flickr8k"))
    assert len(data.names) == 7282
    assert [len(data.of_split(s)) for s in ("train", "dev", "test")] == [5400, 900, 900]


def test_coco6k_pack_of_this_project(data_dir: Callable[[str], Path]) -> None:
    data = read(data_dir("coco6k"), None, "coco-objects")
    assert data.targets.shape == (5551, 80)
    assert [len(data.subset(s)) for s in ("train", "dev", "test")] == [4010, 462, 1079]
    assert data.open(0).size == (144, 144)


def coco_captions(folder: Path) -> None:
    """The layout of torchvision's CocoCaptions, in a tiny folder."""
    (folder / "annotations").mkdir(parents=True)
    for official, said in (
        ("train2014", {"t1.jpg": ["Two dogs playing", "A dog"], "t2.jpg": ["Red snow"]}),
        ("val2014", {"v1.jpg": ["A dog in the snow"]}),
    ):
        write_folder(folder / official, list(said))
        images = [{"id": i, "file_name": name} for i, name in enumerate(said)]
        annotations = [
            {"image_id": i, "caption": caption}
            for i, captions in enumerate(said.values())
            for caption in captions
        ]
        content = json.dumps({"images": images, "annotations": annotations})
        (folder / "annotations" / f"captions_{official}.json").write_text(content)


def test_coco_captions(tmp_path: Path) -> None:
    coco_captions(tmp_path / "coco")
    data = read_any_captions(tmp_path / "coco", "coco-caption-words")
    assert data.names == ("t1.jpg", "t2.jpg", "v1.jpg")
    assert data.captions[0] == ("Two dogs playing", "A dog")
    assert data.split[2] == "test"
    assert data.subset("test").names == ("v1.jpg",)
    assert data.subset("all", 2).names == ("t1.jpg", "t2.jpg")
    assert data.opener("v1.jpg").size == (8, 6)
    words = read(tmp_path / "coco", None, "coco-caption-words")
    assert set(words.labels) == {"dog", "play"}  # by its name, t2.jpg is a dev image
    dog = words.labels.index("dog")
    assert words.targets[:, dog].tolist() == [True, False, True]
    given = read(tmp_path / "coco", ["snow"], "coco-caption-words")
    assert given.targets[:, 0].tolist() == [False, True, True]


def test_label_weights_are_those_of_the_paper() -> None:
    targets = np.array([[True, False], [False, False], [False, False], [False, True]])
    assert label_weights(targets).tolist() == [3.0, 3.0]
    assert label_weights(np.array([[True], [True], [False]])).tolist() == [0.5]
    assert label_weights(np.zeros((4, 1), dtype=bool)).tolist() == [4.0]


def test_captions_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no captions_\*.json"):
        read(tmp_path, None, "coco-caption-words")
    with pytest.raises(DataError, match="'coco-objects' has no captions"):
        read_any_captions(tmp_path, "coco-objects")
    (tmp_path / "captions_val2014.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="it has no 'annotations'"):
        read_any_captions(tmp_path, "coco-caption-words")


@pytest.mark.parametrize("folder", [None, 5, "~nobody-of-this-name/x", "x\0y", "x" * 5000, b"x"])
def test_what_is_no_folder(folder) -> None:
    with pytest.raises(DataError, match=r"no folder|can't be a folder"):
        read(folder, None, "coco-objects")
