"""Images as one uint8 tensor, and augmentation of whole batches where that tensor is.

Small images all fit in memory (5,400 of 224 px take 0.8 GB), so they are decoded once,
and cropping, flipping and colour changes are a few tensor operations for each batch.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


class Images(Protocol):
    """What `load` needs of `fa_evaluate.data.LabelledImages`."""

    @property
    def targets(self) -> np.ndarray: ...
    def __len__(self) -> int: ...
    def open(self, index: int) -> Image.Image: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded images.

    Args:
        images: (N, 3, size, size) uint8.
        targets: (N, n) float32, 0 or 1.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Pixels:
        """The same on another device."""
        return Pixels(self.images.to(device), self.targets.to(device))


def load(data: Images, size: int, threads: int = 1) -> Pixels:
    """Decode images, each squashed to a square as the checkpoint's transform does.

    Args:
        data: The images and their truth.
        size: Side in pixels; bicubic where the image is of another size.
        threads: How many decode at a time.
    """
    images = torch.empty(len(data), 3, size, size, dtype=torch.uint8)

    def decode(index: int) -> None:
        image = data.open(index)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        images[index] = torch.from_numpy(np.array(image)).permute(2, 0, 1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, range(len(data))))
    return Pixels(images, torch.from_numpy(data.targets.astype(np.float32)))


def normalise(images: Tensor) -> Tensor:
    """From 0..255 to -1..1, the input of `tf_efficientnet_lite0` (mean = std = 0.5)."""
    return images.float().div(127.5).sub(1.0)


def augment(images: Tensor, *, crop: float, colour: float, generator: torch.Generator) -> Tensor:
    """Randomly crop, flip and recolour each image of a batch in its own way.

    Args:
        images: (B, 3, size, size) uint8.
        crop: Least share of the area that a crop keeps, in (0, 1]; its aspect ratio is
            between 3:4 and 4:3.
        colour: Brightness, contrast and saturation change by a factor of 1 +- this.
        generator: A CPU generator: the same changes on every device.

    Returns:
        (B, 3, size, size) float32, from -1 to 1.
    """
    batch, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(batch).uniform_(low, high, generator=generator)

    area, aspect = uniform(crop, 1.0), uniform(np.log(3 / 4), np.log(4 / 3)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros(batch)
    # One resampling does crop and flip: rows of each image's affine map, in -1..1.
    theta = torch.stack([width * mirror, zero, x, zero, height, y], dim=1).view(batch, 2, 3)
    gains = torch.stack([uniform(1 - colour, 1 + colour) for _ in range(3)])
    theta, gains = theta.to(device), gains.to(device)[..., None, None, None]
    pixels = normalise(images)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    pixels = (pixels + 1) * gains[0] - 1
    pixels = _blend(pixels, pixels.mean(dim=(1, 2, 3), keepdim=True), gains[1])
    pixels = _blend(pixels, pixels.mean(dim=1, keepdim=True), gains[2])
    return pixels.clamp(-1, 1)


def _blend(pixels: Tensor, towards: Tensor, gain: Tensor) -> Tensor:
    return towards + gain * (pixels - towards)
