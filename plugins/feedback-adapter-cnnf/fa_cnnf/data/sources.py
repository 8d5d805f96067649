"""The images that checkpoints are trained on and attacked with, by the name of their source."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fa_cnnf.data import cifar10, fashion_mnist
from feedback_adapter.errors import InputError, did_you_mean

__all__ = ["SOURCES", "read", "to_input"]

SOURCES = {"fashion": fashion_mnist, "cifar10": cifar10}
"""Modules with `CLASSES` and `read(folder, split)`, by a checkpoint's `data.source`."""


def read(source: str, folder: Path | None = None, split: str = "test") -> tuple[Tensor, Tensor]:
    """Images (N, channels, height, width) uint8 and labels (N) int64.

    Args:
        source: One of `SOURCES`.
        folder: Where the files are; Fashion-MNIST is looked for where Debian puts it.
        split: `"train"` or `"test"`.

    Raises:
        InputError: No such source or split, or the files aren't there.
    """
    if source not in SOURCES:
        raise InputError(f"There are no images {source!r}. {did_you_mean(source, SOURCES)}")
    if folder is None:
        if source != "fashion":
            raise InputError(f"Say where {source!r} is: give its folder (--data).")
        folder = fashion_mnist.FOLDER
    return SOURCES[source].read(folder, split)


def to_input(pixels: Tensor) -> Tensor:
    """uint8 pixels as the nets take them, in [-1, 1]."""
    return pixels.float() / 127.5 - 1
