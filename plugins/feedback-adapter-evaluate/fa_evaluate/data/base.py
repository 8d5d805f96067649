"""What every reader returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fa_evaluate.data.files import Opener
from feedback_adapter.errors import DataError, did_you_mean

__all__ = [
    "SPLITS",
    "CaptionedImages",
    "LabelledImages",
    "rows_of",
]

SPLITS = ("train", "dev", "test", "all")
"""What `LabelledImages.subset` takes; images that a data set puts in none are only in 'all'."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with the truth for each label, decoded only when asked for.

    Args:
        names: (N) file names, unique.
        split: (N) "train", "dev", "test" or "none".
        labels: (n) label names, one for each column of `targets`.
        targets: (N, n) bool; True where the image has the label.
        opener: Opens an image by its name, as RGB, or raises a DataError.
    """

    names: tuple[str, ...]
    split: tuple[str, ...]
    labels: tuple[str, ...]
    targets: np.ndarray
    opener: Opener = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        expected = (len(self.names), len(self.labels))
        if self.targets.shape != expected or self.targets.dtype != np.bool_:
            raise DataError(
                f"targets must be bool of shape {expected} (images, labels), but are "
                f"{self.targets.dtype} of shape {self.targets.shape}."
            )
        if len(self.split) != len(self.names):
            raise DataError(f"{len(self.names)} names, but {len(self.split)} splits.")

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int) -> Image.Image:
        """Decode image number `index` as RGB.

        Raises:
            DataError: The image is missing or can't be decoded.
        """
        return self.opener(self.names[index])

    def select(self, indices: Sequence[int] | np.ndarray) -> LabelledImages:
        """These images only, in this order."""
        rows: list[int] = np.asarray(indices, dtype=np.int64).tolist()
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in rows),
            split=tuple(self.split[i] for i in rows),
            targets=self.targets[rows],
        )

    def subset(self, split: str) -> LabelledImages:
        """The images of one split, in the order they are in here.

        Args:
            split: "train", "dev", "test" or "all".

        Raises:
            DataError: Unknown split, or one without an image.
        """
        return self if split == "all" else self.select(rows_of(self.split, split))


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedImages:
    """Images with their captions, decoded only when asked for.

    Args:
        names: (N) file names.
        split: (N) "train", "dev", "test" or "none".
        captions: (N) each image's captions.
        opener: Opens an image by its name, as RGB, or raises a DataError.
    """

    names: tuple[str, ...]
    split: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    opener: Opener = dataclasses.field(repr=False)

    def of_split(self, split: str) -> list[tuple[str, ...]]:
        """The captions of each image of one split."""
        return [c for c, own in zip(self.captions, self.split, strict=True) if own == split]

    def subset(self, split: str, limit: int | None = None) -> CaptionedImages:
        """The (first so many) images of one split, in the order they are in here.

        Raises:
            DataError: Unknown split, or one without an image.
        """
        rows = rows_of(self.split, split)[:limit]
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in rows),
            split=tuple(self.split[i] for i in rows),
            captions=tuple(self.captions[i] for i in rows),
        )


def rows_of(splits: Sequence[str], split: str) -> list[int]:
    """Which images are in a split ("all": every one).

    Raises:
        DataError: Unknown split, or one without an image.
    """
    if split not in SPLITS:
        raise DataError(f"There is no split {split!r}. {did_you_mean(split, SPLITS)}")
    rows = [i for i, own in enumerate(splits) if split in (own, "all")]
    if not rows:
        there = sorted(set(splits)) or "no images at all"
        raise DataError(f"No image is in split {split!r}; there is {there}.")
    return rows
