"""Reading CamVid and CIFAR-10 from one file each, in which JPEGs lie one behind another."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from feedback_adapter.errors import InputError

__all__ = ["camvid", "cifar10"]


def camvid(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Frames (n, 3, 180, 240) uint8 and masks (n, 180, 240) uint8; 11 means unlabelled.

    Args:
        folder: Holds `camvid.npz`.
        split: "train" (367 frames), "val" (101) or "test" (233), of different sequences.

    Raises:
        InputError: The file isn't there.
    """
    with _open(folder / "camvid.npz") as archive:
        return _decode(archive, split), torch.from_numpy(archive[f"{split}_mask"])


def cifar10(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) int64.

    Args:
        folder: Holds `cifar10_jpeg.npz`. For the results its images were JPEGs of quality 75, so
            that accuracies don't compare to the last point with those on the original images.
        split: "train" (50,000) or "test" (10,000).

    Raises:
        InputError: The file isn't there.
    """
    with _open(folder / "cifar10_jpeg.npz") as archive:
        return _decode(archive, split), torch.from_numpy(archive[f"{split}_label"]).long()


def _open(file: Path) -> np.lib.npyio.NpzFile:
    if not file.is_file():
        command = f"python recipes/pack.py {file.stem.partition('_')[0]} FOLDER {file.parent}"
        raise InputError(f"{file} isn't there. To make it: {command}")
    return np.load(file, allow_pickle=False)


def _decode(archive: np.lib.npyio.NpzFile, split: str) -> Tensor:
    raw, at = archive[f"{split}_jpeg"].tobytes(), archive[f"{split}_offset"]
    images = [
        np.asarray(Image.open(io.BytesIO(raw[a:b])).convert("RGB"))
        for a, b in itertools.pairwise(at)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
