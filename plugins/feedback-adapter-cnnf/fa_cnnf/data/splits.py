"""The training, dev and test images of a source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from fa_cnnf.data.sources import read

__all__ = ["DEV", "Images", "read_splits"]

DEV = 5000
"""The last so many of the training images, after a shuffle with seed 0, are for choices."""


@dataclasses.dataclass(frozen=True)
class Images:
    """One split: images (N, C, H, W) uint8 and labels (N) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: slice) -> Images:
        """Some of the images."""
        return Images(self.images[rows], self.labels[rows])

    def to(self, device: torch.device | str) -> Images:
        """The same on another device."""
        return Images(self.images.to(device), self.labels.to(device))


def read_splits(source: str, folder: Path | None) -> tuple[Images, Images, Images]:
    """Training, dev and test images of one of `SOURCES`; see `read`."""
    train, test = (Images(*read(source, folder, part)) for part in ("train", "test"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    keep = len(train) - min(DEV, len(train) // 10)
    train = Images(train.images[order], train.labels[order])
    return train.take(slice(keep)), train.take(slice(keep, None)), test
