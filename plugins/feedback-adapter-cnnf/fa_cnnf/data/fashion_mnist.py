"""Reading Fashion-MNIST from its four IDX files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feedback_adapter.errors import InputError

__all__ = ["CLASSES", "FOLDER", "read"]

FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts them."""

CLASSES = tuple("t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot".split())


def read(folder: Path, split: str = "test") -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) uint8 and labels (N) int64, in the order of the files.

    Args:
        folder: Holds `train-` and `t10k-images-idx3-ubyte` and `-labels-idx1-ubyte`, packed
            (`.gz`) or not.
        split: `"train"` or `"test"`.

    Raises:
        InputError: A file isn't there, or isn't an IDX file.
    """
    prefix = {"train": "train", "test": "t10k"}.get(split)
    if prefix is None:
        raise InputError(f"split={split!r} is not possible: 'train' and 'test' are.")
    images = _idx(folder / f"{prefix}-images-idx3-ubyte", 3)[:, None]
    labels = _idx(folder / f"{prefix}-labels-idx1-ubyte", 1).long()
    if len(images) != len(labels):
        raise InputError(f"{folder} holds {len(images)} images, but {len(labels)} labels.")
    return images, labels


def _idx(path: Path, ndim: int) -> Tensor:
    packed = path.with_name(f"{path.name}.gz")
    try:
        if not packed.is_file() and not path.is_file():  # a pipe would never end
            raise OSError("there is no regular file of either name")
        raw = gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes()
        if raw[3] != ndim:
            raise ValueError(f"it has {raw[3]} dimensions, not {ndim}")
        shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(
            f"{path} (or {packed.name}) can't be read: {error}. Fashion-MNIST comes with Debian's "
            "package dataset-fashion-mnist or torchvision's FashionMNIST(download=True)."
        ) from error
    return torch.from_numpy(values.copy())
