"""Archives of photos that are broken, or grow without measure, are read right or named."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fa_evaluate.data import read
from feedback_adapter.errors import DataError

NAMES = ("a.png", "b.png")


def png(side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (250, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(content: bytes, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name in NAMES:
            archive.writestr(name, content)
    return buffer.getvalue()


def pack(folder: Path, archive: bytes) -> Path:
    """A tiny folder in COCO's packed layout."""
    entries = {name: {"split": "val2014", "labels": [0]} for name in NAMES}
    (folder / "annotations.json").write_text(json.dumps(entries))
    (folder / "classes.json").write_text('[{"name": "dog"}]')
    (folder / "images.zip").write_bytes(archive)
    return folder


def read_all(folder: Path, source: str) -> None:
    data = read(folder, None, source)
    for index in range(len(data)):
        assert data.open(index).mode == "RGB"


def refused(folder: Path, source: str = "coco-objects") -> str:
    """The error of reading all that is in a folder."""
    with pytest.raises(DataError) as caught:
        read_all(folder, source)
    return str(caught.value)


def test_archives_that_are_broken_or_grow_without_measure(tmp_path: Path) -> None:
    whole = zipped(png(side=64))
    local = whole.index(b"IDAT")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\1\2") + 8] |= 1
    method = bytearray(whole)
    method[8] = method[whole.index(b"PK\1\2") + 10] = 77
    for archive, says in (
        (b"hello", "File is not a zip file"),
        (whole[: len(whole) // 2], "File is not a zip file"),
        (whole[:local] + b"xxxx" + whole[local + 4 :], "Bad CRC-32"),
        (bytes(encrypted), "encrypted"),
        (bytes(method), "compression"),
        (zipped(b"no photo"), "is not an image that Pillow can read"),
        (zipped(bytes(2**27 + 1), compression=zipfile.ZIP_DEFLATED), "134,217,729 bytes large"),
    ):
        tracemalloc.start()
        message = refused(pack(tmp_path, archive))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert says in message
        assert "'a.png'" in message
        assert "images.zip" in message
        assert peak < 20e6


def tree(folder: Path, **change: Any) -> Path:
    """A tiny Tiny-ImageNet-H."""
    photo = np.frombuffer(png(), np.uint8)
    content = {
        "fine_names": np.array(["dog", "cat"]),
        "coarse_names": np.array(["animal"]),
        "fine_to_coarse": np.zeros(2, np.uint8),
    }
    for part in ("train", "test"):
        content[f"{part}_jpeg"] = np.concatenate([photo] * 2)
        content[f"{part}_offset"] = np.arange(3) * len(photo)
        content[f"{part}_fine"] = np.arange(2, dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    kept = {key: value for key, value in (content | change).items() if value is not None}
    np.savez_compressed(folder / "tinyimagenet_h.npz", **kept)
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test_fine": None}, "lacks a key: test_fine"),
        ({"test_fine": np.array([0, 5])}, "entry 1 of 'test_fine' is 5"),
        ({"test_fine": np.array([0, -1])}, "entry 1 of 'test_fine' is -1"),
        ({"test_offset": np.array([0, 9])}, "'test_offset' must say where each of the 2"),
        ({"test_offset": np.array([0, 9, 8])}, "'test_offset' must say where each of the 2"),
        ({"test_offset": np.array([0, 1, 10**9])}, "entry 2 of 'test_offset' is 1000000000"),
        ({"train_fine": np.zeros((2, 2), int)}, "'train_fine' is int64 (2, 2)"),
        ({"fine_names": np.array([b"x"], object)}, "can't be read"),
        ({"fine_names": np.array(["dog", "dog"])}, "'fine_names' repeat"),
        ({"fine_to_coarse": np.array([0, 3])}, "entry 1 of 'fine_to_coarse' is 3"),
        ({"train_jpeg": np.zeros(10**8, np.uint8)}, "would become 100,000,128"),
    ],
)
def test_malformed_tiny_imagenet(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    message = refused(tree(tmp_path, **change), "tinyimagenet-fine")
    assert says in message
    assert "tinyimagenet_h.npz" in message


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_any_damage_of_an_archive_is_read_or_named(
    tmp_path_factory: Any, changes: list[tuple[int, int]], arrays: bool
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    file = folder / ("tinyimagenet_h.npz" if arrays else "images.zip")
    _ = tree(folder) if arrays else pack(folder, zipped(png()))
    damaged = bytearray(file.read_bytes())
    for place, value in changes:
        damaged[place % len(damaged)] = value
    file.write_bytes(damaged)
    try:
        read_all(folder, "tinyimagenet-fine" if arrays else "coco-objects")
    except DataError as error:
        said = str(error)
    else:
        said = file.name
    assert file.name in said
