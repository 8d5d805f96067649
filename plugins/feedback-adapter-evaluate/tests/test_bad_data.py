"""Data folders that somebody else wrote, badly or with intent: read right, or named errors."""

from __future__ import annotations

import copy
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fa_evaluate.data import read, read_captions
from feedback_adapter.errors import DataError

RED, BLUE = (250, 0, 0), (0, 0, 250)
PACK = {"a.png": {"split": "val2014", "labels": [0]}, "b.png": {"split": "train2014", "labels": []}}
TOLD = {"a.png": {"split": "train", "captions": ["A dog"]}}


def png(colour: tuple[int, int, int] = RED, side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(
    folder: Path, split: str = "val2014", colour: tuple[int, int, int] = RED, **change: Any
) -> Path:
    """A tiny folder in COCO's official layout: two photos, a dog in the first, a cat in both."""
    content = {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 7, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "caption": "A dog and a cat"},
            {"image_id": 1, "category_id": 7, "caption": "Two pets"},
            {"image_id": 2, "category_id": 7, "caption": "A cat"},
        ],
    } | change
    content = {key: value for key, value in content.items() if value is not None}
    for kind in ("instances", "captions"):
        write(folder / f"{kind}_{split}.json", content)
    for name in ("1.png", "2.png"):
        write(folder / split / name, png(colour))
    return folder


def pack(
    folder: Path,
    entries: Any = PACK,
    classes: Any = ({"name": "dog"},),
    archive: bytes | None = None,
) -> Path:
    """A tiny folder in the packed layouts of COCO and of captions."""
    write(folder / "annotations.json", entries)
    write(folder / "classes.json", classes)
    if archive is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            for name in PACK:
                target.writestr(name, png())
        archive = buffer.getvalue()
    write(folder / "images.zip", archive)
    return folder


def refused(folder: Path, source: str = "coco-objects") -> str:
    """The error of reading all that is in a folder."""
    with pytest.raises(DataError) as caught:
        read_all(folder, source)
    return str(caught.value)


def read_all(folder: Path, source: str = "coco-objects") -> None:
    data = read(folder, None if source == "coco-objects" else ["dog"], source)
    for index in range(len(data)):
        assert data.open(index).mode == "RGB"


def test_coco_splits_with_equal_file_names_open_each_its_own_photo(tmp_path: Path) -> None:
    coco(tmp_path, "train2014", BLUE)
    coco(tmp_path, "val2014", RED)
    for data in (
        read(tmp_path, None, "coco-objects"),
        read_captions(tmp_path, "coco-caption-words"),
    ):
        assert data.names == (
            "train2014/1.png",
            "train2014/2.png",
            "val2014/1.png",
            "val2014/2.png",
        )
        seen = [data.opener(name).getpixel((0, 0)) for name in data.names]
        assert seen == [BLUE, BLUE, RED, RED]
        assert data.split[2:] == ("test", "test")
        assert "test" not in data.split[:2]


def test_a_split_called_test_is_no_training_data(tmp_path: Path) -> None:
    assert read(coco(tmp_path, "test"), None, "coco-objects").split == ("test", "test")


def test_categories_of_one_name_are_one_label(tmp_path: Path) -> None:
    """Exports have a parent category, which no annotation uses, with its child's name."""
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 7, "name": "cat"}]
    data = read(coco(tmp_path, categories=categories), None, "coco-objects")
    assert data.labels == ("cat", "dog")
    assert data.targets.tolist() == [[True, True], [True, False]]


def test_links_may_stay_in_the_folder_of_photos_and_that_may_be_a_link(tmp_path: Path) -> None:
    folder = coco(tmp_path / "data")
    (folder / "val2014").rename(tmp_path / "elsewhere")
    (folder / "val2014").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "2.png").unlink()
    (tmp_path / "elsewhere" / "2.png").symlink_to("1.png")
    read_all(folder)
    write(tmp_path / "private.png", png())
    (tmp_path / "elsewhere" / "2.png").unlink()
    (tmp_path / "elsewhere" / "2.png").symlink_to(tmp_path / "private.png")
    assert "'2.png' can't be read" in refused(folder)
    assert "it leads out of the folder" in refused(folder)


@pytest.mark.parametrize(
    "name", ["../private.png", "../../data/val2014/1.png", "/etc/hosts", "a\0b", "", ".", "..\\x"]
)  # fmt: skip
def test_names_lead_nowhere_else(name: str, tmp_path: Path) -> None:
    write(tmp_path / "data" / "private.png", png())
    images = [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": name}]
    message = refused(coco(tmp_path / "data", images=images))
    assert "instances_val2014.json" in message
    assert f"{name!r} isn't the name of a photo within" in message
    assert "isn't the name of a photo" in refused(
        pack(tmp_path / "pack", {name: {"split": "val", "labels": []}})
    )


def test_an_annotation_file_whose_name_leads_out_is_refused(tmp_path: Path) -> None:
    coco(tmp_path / "data")
    (tmp_path / "data" / "instances_val2014.json").rename(tmp_path / "data" / "instances_...json")
    assert "'..' isn't the name of a photo within" in refused(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": None}, "it has no 'images'"),
        ({"annotations": None}, "it has no 'annotations'"),
        ({"categories": None}, "it has no 'categories'"),
        ({"categories": []}, "'categories' is empty"),
        ({"images": 5}, "'images' of it is 5: it must be a list"),
        ({"images": [5]}, r"images[0] is 5, not an object with 'id'"),
        ({"images": [{"id": 1}]}, "images[0] has no 'file_name'"),
        ({"images": [{"id": True, "file_name": "1.png"}]}, "'id' of images[0] is True"),
        ({"images": [{"id": 1, "file_name": "1.png"}] * 2}, "has the image id 1 twice"),
        (
            {"images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "1.png"}]},
            "has the file_name '1.png' twice",
        ),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id 1 twice"),
        ({"categories": [{"id": 1, "name": 3}]}, "'name' of categories[0] is 3: it must be text"),
        (
            {"annotations": [{"image_id": 1, "category_id": 9}]},
            "nothing has the category_id 9 of annotations[0]",
        ),
        (
            {"annotations": [{"image_id": "1", "category_id": 1}]},
            "nothing has the image_id '1' of annotations[0]",
        ),
        (
            {"annotations": [{"image_id": [], "category_id": 1}]},
            "'image_id' of annotations[0] is []: it must be a whole number or text",
        ),
        ({"annotations": [{"image_id": 1.5, "category_id": 1}]}, "'image_id' of annotations[0]"),
    ],
)
def test_malformed_coco_names_file_entry_and_reason(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    message = refused(coco(tmp_path, **change))
    assert says in message
    assert "instances_val2014.json" in message


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ({"image_id": 1}, "annotations[0] has no 'caption'"),
        ({"image_id": 1, "caption": ["A dog"]}, "'caption' of annotations[0] is ['A dog']"),
        ({"image_id": 9, "caption": "A dog"}, "nothing has the image_id 9 of annotations[0]"),
    ],
)
def test_malformed_captions_of_coco(annotation: Any, says: str, tmp_path: Path) -> None:
    message = refused(coco(tmp_path, annotations=[annotation]), "coco-caption-words")
    assert says in message
    assert "captions_val2014.json" in message


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"a.png": {"split": "val", "labels": [7]}}, "'a.png' has the label 7, but the 1 classes"),
        ({"a.png": {"split": "val", "labels": [-1]}}, "has the label -1"),
        ({"a.png": {"split": "val", "labels": [True]}}, "has the label True"),
        ({"a.png": {"split": "val", "labels": "dog"}}, "'labels' of 'a.png' is 'dog'"),
        ({"a.png": {"split": 5, "labels": []}}, "'split' of 'a.png' is 5: it must be text"),
        ({"a.png": 5}, "'a.png' is 5, not an object"),
        ([1], "must hold a dict, but holds a list"),
        ('{"a.png": {}, "a.png": {}}', "'a.png' is there twice"),
        ("[" * 100_000, "can't be read as JSON"),
        ('{"a.png": ' + "9" * 5000 + "}", "can't be read as JSON"),
        (b"\xff\xfe{}", "can't be read"),
        (b"", "can't be read as JSON"),
    ],
)  # fmt: skip
def test_malformed_packs_name_file_entry_and_reason(
    entries: Any, says: str, tmp_path: Path
) -> None:
    message = refused(pack(tmp_path, entries))
    assert says in message
    assert "annotations.json" in message


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    read_all(pack(tmp_path, b"\xef\xbb\xbf" + json.dumps(PACK).encode()))


def test_malformed_classes(tmp_path: Path) -> None:
    assert "[1] has no 'name'" in refused(pack(tmp_path, classes=[{"name": "dog"}, {}]))
    assert "class 'dog' twice" in refused(pack(tmp_path, classes=[{"name": "dog"}] * 2))
    (tmp_path / "classes.json").unlink()
    assert "there is no regular file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"split": "train", "captions": "A dog"}, "'captions' of 'a.png' is 'A dog'"),
        ({"split": "train", "captions": ["A dog", None]}, "a caption of 'a.png' isn't text"),
        ({"split": "val", "captions": []}, "'split' of 'a.png' is 'val': it must be train, dev"),
        ({"captions": []}, "'a.png' has no 'split'"),
    ],
)
def test_malformed_packs_of_captions(entry: Any, says: str, tmp_path: Path) -> None:
    write(tmp_path / "captions.json", {"a.png": entry})
    message = refused(tmp_path, "caption-words")
    assert says in message
    assert "captions.json" in message


def flickr(folder: Path, tokens: bytes, train: str = "a.png", test: str = "b.png") -> Path:
    write(folder / "Flickr8k.token.txt", tokens)
    write(folder / "Flickr_8k.trainImages.txt", train)
    write(folder / "Flickr_8k.testImages.txt", test)
    for name in ("a.png", "b.png"):
        write(folder / "Images" / name, png())
    return folder


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_captions_may_hold_characters_that_count_as_line_breaks(end: bytes, tmp_path: Path) -> None:
    odd = "A dog\u2028in\x85the\x0bsnow\x1c, or\u2029a\x0ccat"
    cat = "A\rcat\twith a tab" if end != b"\r" else "A cat"
    tokens = ["a.png#0\tOne", f"a.png#1\t{odd}", f"b.png#0\t{cat}", "", ""]
    folder = flickr(tmp_path, end.join(line.encode() for line in tokens))
    data = read_captions(folder, "caption-words")
    assert data.captions == (("One", odd), (cat,))


@pytest.mark.parametrize(
    ("tokens", "lists", "says"),
    [
        (b"a.png#0\tA dog\nthe rest of it", {}, "Line 2 of "),
        (b"a.png\tA dog", {}, "Line 1 of "),
        (b"a.png#0\tA \xff", {}, "Flickr8k.token.txt' can't be read"),
        (b"../a.png#0\tA dog", {}, "'../a.png' isn't the name of a photo within"),
        (b"a.png#0\tA dog\nb.png#0\tA cat", {"test": "a.png"}, "'a.png' is in Flickr_8k.train"),
        (b"a.png#0\tA dog", {}, "1 of 2 images"),
    ],
)
def test_malformed_flickr8k(
    tokens: bytes, lists: dict[str, str], says: str, tmp_path: Path
) -> None:
    assert says in refused(flickr(tmp_path, tokens, **lists), "caption-words")


def test_a_name_longer_than_any_file_has(tmp_path: Path) -> None:
    message = refused(coco(tmp_path, images=[{"id": 1, "file_name": "é" * 200 + ".png"}]))
    assert "isn't the name of a photo within the data's folder." in message


def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    folder = coco(tmp_path / "photo")
    (folder / "val2014" / "2.png").unlink()
    os.mkfifo(folder / "val2014" / "2.png")
    assert "isn't a regular file" in refused(folder)
    for name, source in (
        ("instances_val2014.json", "coco-objects"),
        ("annotations.json", "coco-objects"),
        ("captions.json", "caption-words"),
        ("Flickr8k.token.txt", "caption-words"),
        ("captions_val2014.json", "coco-caption-words"),
        ("tinyimagenet_h.npz", "tinyimagenet-fine"),
    ):
        (tmp_path / name.replace(".", "_")).mkdir()
        os.mkfifo(tmp_path / name.replace(".", "_") / name)
        assert name in refused(tmp_path / name.replace(".", "_"), source)


@pytest.mark.parametrize("source", ["tinyimagenet-fine", "caption-words", "nonsense", 5, None, []])
def test_sources_and_labels_that_are_none(source: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'dog' isn't a list|no data source"):
        read(tmp_path, "dog", source)
    with pytest.raises(
        DataError, match=r"no data source|no folder|There is no|No Flickr8k|No Tiny"
    ):
        read(tmp_path, ["dog"], source)


@pytest.mark.parametrize("labels", [5, [5], [["dog"]], [None], {"dog": 1}.keys(), ("dog", b"cat")])
@pytest.mark.parametrize("source", ["coco-objects", "coco-caption-words"])
def test_labels_are_names(labels: Any, source: str, tmp_path: Path) -> None:
    folder = coco(tmp_path)
    if isinstance(labels, type({}.keys())):
        assert read(folder, labels, source).labels == ("dog",)
        return
    with pytest.raises(DataError, match="isn't a list of names"):
        read(folder, labels, source)


def changed(content: Any, draw: Any) -> Any:
    """A JSON value with one part replaced, removed or doubled, chosen by hypothesis."""
    content = copy.deepcopy(content)
    holder: Any = content
    for _ in range(draw(st.integers(0, 4))):
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(holder[key], (dict, list)) and holder[key] and draw(st.booleans()):
            holder = holder[key]
            continue
        what = draw(st.sampled_from(["remove", "double", "replace"]))
        if what == "remove":
            del holder[key]
        elif what == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            odd = [None, True, -1, 10**30, 0.5, "", "../x", "\ud800", [], {}, [[]], {"id": []}]
            holder[key] = draw(st.sampled_from(odd))
        break
    return content


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_change_of_a_file_is_read_or_named(tmp_path_factory: Any, data: Any) -> None:
    folder = tmp_path_factory.mktemp("changed")
    kind = data.draw(st.sampled_from(["official", "pack", "captions"]))
    if kind == "official":
        coco(folder)
        names, source = ["instances_val2014.json", "captions_val2014.json"], "coco-objects"
        source = data.draw(st.sampled_from([source, "coco-caption-words"]))
    elif kind == "pack":
        names, source = ["annotations.json", "classes.json"], "coco-objects"
        pack(folder)
    else:
        names, source = ["captions.json"], "caption-words"
        write(pack(folder) / "captions.json", TOLD)
    for name in names:
        before = json.loads((folder / name).read_text())
        write(folder / name, changed(before, data.draw))
    try:
        read_all(folder, source)
    except DataError as error:
        said = str(error)
    else:
        said = str(folder)
    assert folder.name in said
