"""Corruptions at five strengths each, after Hendrycks and Dietterich (2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
from torchvision.transforms.functional import gaussian_blur

STRENGTHS: dict[str, dict[str, tuple[float, ...]]] = {
    "cifar10": {  # those of CIFAR-10-C
        "gaussian": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation in [0, 1] units
        "blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation in pixels
        "jpeg": (80, 65, 58, 50, 40),  # quality
    },
    "fashion": {
        "gaussian": (0.05, 0.10, 0.15, 0.20, 0.25),
        "blur": (0.50, 0.75, 1.00, 1.25, 1.50),
        "jpeg": (50, 30, 20, 10, 5),
    },
}


def corrupt(images: Tensor, kind: str, strength: float, seed: int = 0) -> Tensor:
    """Images (n, channels, h, w) in [-1, 1] with one of `STRENGTHS` done to them."""
    if kind == "gaussian":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(images.shape, generator=generator)
        return (images + 2 * strength * noise).clamp(-1, 1)
    if kind == "blur":
        return gaussian_blur(images, [9, 9], [strength, strength])
    if kind == "jpeg":
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        files = [encode_jpeg(image, quality=int(strength)) for image in pixels]
        back = [decode_jpeg(file, ImageReadMode.UNCHANGED) for file in files]
        return torch.stack(back).float() / 127.5 - 1
    raise ValueError(f"{kind!r} is none of gaussian, blur, jpeg")


def noisy(images: Tensor, generator: torch.Generator, most: float) -> Tensor:
    """Gaussian noise, of a standard deviation between 0 and `most` drawn for each image."""
    size = torch.rand(len(images), 1, 1, 1, generator=generator) * 2 * most
    return (images + size * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
