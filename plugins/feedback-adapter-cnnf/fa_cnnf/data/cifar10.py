"""Reading CIFAR-10: torchvision's download, or JPEGs packed into one file."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10

from feedback_adapter.errors import InputError
from feedback_adapter.photos import read_photo

__all__ = ["CLASSES", "PACKED", "read"]

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())

PACKED = "cifar10_jpeg.npz"
"""JPEGs of quality 75 (PSNR about 30 dB): say so beside any number."""


def read(folder: Path, split: str = "test") -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N) int64, in the order of the files.

    Args:
        folder: Holds `PACKED`, or what torchvision's `CIFAR10(folder, download=True)` put there.
        split: `"train"` or `"test"`.

    Raises:
        InputError: No such split, or the files aren't there or are broken.
    """
    if split not in ("train", "test"):
        raise InputError(f"split={split!r} is not possible: 'train' and 'test' are.")
    if (folder / PACKED).is_file():
        return _unpack(folder / PACKED, split)
    try:
        found = CIFAR10(folder, split == "train")
    except RuntimeError as error:
        raise InputError(
            f"{folder} holds neither {PACKED} nor CIFAR-10: {error} It comes with torchvision's "
            "CIFAR10(folder, download=True)."
        ) from error
    pixels = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(found.targets)


def _unpack(file: Path, split: str) -> tuple[Tensor, Tensor]:
    try:
        with np.load(file) as archive:
            raw, at = archive[f"{split}_jpeg"].tobytes(), archive[f"{split}_offset"]
            labels = archive[f"{split}_label"].astype(np.int64)
        pieces = [raw[begin:end] for begin, end in itertools.pairwise(at.tolist())]
        photos = [np.asarray(read_photo(io.BytesIO(piece), "a photo")) for piece in pieces]
        pixels = np.stack(photos)
        if pixels.shape != (len(labels), 32, 32, 3) or not set(labels.tolist()) <= set(range(10)):
            raise ValueError(f"it holds {pixels.shape} pixels and {labels.shape} labels")
    except Exception as error:  # on a broken file, decoders raise nearly anything
        raise InputError(f"{str(file)!r} can't be read: {error}") from error
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)
