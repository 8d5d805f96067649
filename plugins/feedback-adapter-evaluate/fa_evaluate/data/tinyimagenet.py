"""Tiny-ImageNet-H: 100 fine classes in 20 coarse ones, photos of 64 x 64.

One file is read, `tinyimagenet_h.npz`, with the keys `{train,test}_{jpeg,offset,fine}`
(all JPEG files in a row, where each begins, its fine class), `fine_names`, `coarse_names`
and `fine_to_coarse`. A tenth of the training images, by a hash of their names, is the dev
split.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fa_evaluate.data.base import LabelledImages
from feedback_adapter.errors import DataError, did_you_mean

__all__ = ["read_fine", "read_groups"]

_FILE = "tinyimagenet_h.npz"


def read_fine(directory: Path, labels: Sequence[str] | None) -> LabelledImages:
    """Read images with their fine class as the only label that holds.

    Args:
        directory: The folder of the file.
        labels: Names of fine classes; `None` for all, in the file's order. Images of
            other classes are left out.

    Raises:
        DataError: The file isn't there or lacks a key, or a label is unknown.
    """
    content = _content(directory)
    fine_names = [str(name) for name in content["fine_names"]]
    wanted = fine_names if labels is None else list(labels)
    for label in wanted:
        if label not in fine_names:
            raise DataError(f"The data has no class {label!r}. {did_you_mean(label, fine_names)}")
    column = {fine_names.index(label): place for place, label in enumerate(wanted)}
    names: list[str] = []
    split: list[str] = []
    truth: list[int] = []
    blobs: dict[str, tuple[bytes, np.ndarray]] = {}
    for part in ("train", "test"):
        blobs[part] = (content[f"{part}_jpeg"].tobytes(), content[f"{part}_offset"])
        for index, fine in enumerate(content[f"{part}_fine"].tolist()):
            if fine in column:
                name = f"{part}/{index:05d}"
                names.append(name)
                split.append(_split_of(name))
                truth.append(column[fine])
    targets = np.zeros((len(names), len(wanted)), dtype=np.bool_)
    targets[np.arange(len(names)), truth] = True

    def open_image(name: str) -> Image.Image:
        part, _, number = name.partition("/")
        blob, offset = blobs[part]
        start, end = offset[int(number) : int(number) + 2].tolist()
        return Image.open(io.BytesIO(blob[start:end])).convert("RGB")

    return LabelledImages(tuple(names), tuple(split), tuple(wanted), targets, open_image)


def read_groups(directory: Path) -> dict[str, list[str]]:
    """`{coarse class: its fine classes}`, in the file's order."""
    content = _content(directory)
    fine, coarse = content["fine_names"].tolist(), content["coarse_names"].tolist()
    groups: dict[str, list[str]] = {name: [] for name in coarse}
    for name, group in zip(fine, content["fine_to_coarse"].tolist(), strict=True):
        groups[coarse[group]].append(name)
    return groups


def _split_of(name: str) -> str:
    if name.startswith("test"):
        return "test"
    return "dev" if zlib.crc32(name.encode()) % 10 == 0 else "train"


def _content(directory: Path) -> np.lib.npyio.NpzFile:
    file = directory / _FILE
    if not file.is_file():
        raise DataError(f"No Tiny-ImageNet-H in {str(directory)!r}: there is no {_FILE}.")
    return np.load(file)
