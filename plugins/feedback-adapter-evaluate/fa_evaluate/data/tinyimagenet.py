"""Tiny-ImageNet-H: 100 fine classes in 20 coarse ones, photos of 64 x 64.

One file is read, `tinyimagenet_h.npz`, with the keys `{train,test}_{jpeg,offset,fine}`
(all JPEG files in a row, where each begins, its fine class), `fine_names`, `coarse_names`
and `fine_to_coarse`. A tenth of the training images, by a hash of their names, is the dev
split.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fa_evaluate.data.base import LabelledImages
from fa_evaluate.data.files import check_archive, opener_of
from feedback_adapter.errors import DataError, did_you_mean

__all__ = ["read_fine", "read_groups"]

_FILE = "tinyimagenet_h.npz"

_KEYS = {
    **{f"{part}_{what}": "iu" for part in ("train", "test") for what in ("jpeg", "offset", "fine")},
    **{"fine_names": "U", "coarse_names": "U", "fine_to_coarse": "iu"},
}
"""The arrays of the file and the kinds of dtype that they may have; all have one dimension."""


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
    fine_names: list[str] = content["fine_names"].tolist()
    wanted = fine_names if labels is None else list(labels)
    for label in wanted:
        if label not in fine_names:
            raise DataError(f"The data has no class {label!r}. {did_you_mean(label, fine_names)}")
    column = {fine_names.index(label): place for place, label in enumerate(wanted)}
    names: list[str] = []
    split: list[str] = []
    truth: list[int] = []
    for part in ("train", "test"):
        for index, fine in enumerate(content[f"{part}_fine"].tolist()):
            if fine in column:
                name = f"{part}/{index:05d}"
                names.append(name)
                split.append(_split_of(name))
                truth.append(column[fine])
    targets = np.zeros((len(names), len(wanted)), dtype=np.bool_)
    targets[np.arange(len(names)), truth] = True

    def read(name: str) -> bytes:
        part, _, number = name.partition("/")
        start, end = content[f"{part}_offset"][int(number) :][:2].tolist()
        return content[f"{part}_jpeg"][start:end].tobytes()

    opener = opener_of(read, directory / _FILE)
    return LabelledImages(tuple(names), tuple(split), tuple(wanted), targets, opener)


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


def _content(directory: Path) -> dict[str, np.ndarray]:
    """All arrays of the file, of the shapes and ranges that they must have."""
    file = directory / _FILE
    if not file.is_file():
        raise DataError(f"No Tiny-ImageNet-H in {str(directory)!r}: there is no {_FILE}.")
    check_archive(file)
    content: dict[str, np.ndarray] = {}
    try:
        with np.load(file) as archive:
            for key, kind in _KEYS.items():
                content[key] = archive[key]
                if content[key].ndim != 1 or content[key].dtype.kind not in kind:
                    raise ValueError(f"{key!r} is {content[key].dtype} {content[key].shape}")
    except KeyError as error:
        raise DataError(f"{str(file)!r} lacks a key: {error.args[0]}.") from error
    except Exception as error:  # on a broken file, decoders raise nearly anything
        raise DataError(f"{str(file)!r} can't be read: {error}") from error
    fine, coarse = content["fine_names"], content["coarse_names"]
    if len(set(fine.tolist())) < len(fine) or len(content["fine_to_coarse"]) != len(fine):
        raise DataError(f"{str(file)!r}: 'fine_names' repeat, or 'fine_to_coarse' isn't as long.")
    _check_numbers(file, "fine_to_coarse", content["fine_to_coarse"], len(coarse))
    for part in ("train", "test"):
        own, offset = content[f"{part}_fine"], content[f"{part}_offset"]
        _check_numbers(file, f"{part}_fine", own, len(fine))
        _check_numbers(file, f"{part}_offset", offset, len(content[f"{part}_jpeg"]) + 1)
        if len(offset) != len(own) + 1 or (np.diff(offset.astype(np.int64)) < 0).any():
            raise DataError(
                f"{str(file)!r}: '{part}_offset' must say where each of the {len(own)} photos "
                "begins, in their order, and where the last one ends."
            )
    return content


def _check_numbers(file: Path, key: str, values: np.ndarray, count: int) -> None:
    wrong = (values < 0) | (values >= count)
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{str(file)!r}: entry {at} of {key!r} is {values[at]}, but must be from 0 to "
            f"{count - 1}."
        )
