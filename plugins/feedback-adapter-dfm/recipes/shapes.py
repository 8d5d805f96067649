"""White triangles on black, and noise over them, as in the paper, made on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["noisy", "triangles", "two_triangles"]

_FINE = 3  # points per pixel and direction when deciding whether a pixel is inside


def triangles(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Masks (count, 1, side, side) of one triangle each, 0 or 1, on the generator's device.

    The radius is uniform in .1 to .25 of the side, the centre uniform in the image, and each
    corner's distance from it varies by 5/512 of the side (standard deviation). Triangles that
    show fewer than 12 pixels are drawn again.
    """
    made: list[Tensor] = []
    while sum(map(len, made)) < count:
        masks = _draw(count, side, generator)
        made.append(masks[masks.flatten(1).sum(1) >= 12])
    return torch.cat(made)[:count]


def two_triangles(count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What is white, and which of its two triangles is meant; both (count, 1, side, side).

    The two are at least three pixels apart.
    """
    both, one = [], []
    while sum(map(len, both)) < count:
        a = triangles(2 * count, side, generator)
        b = triangles(2 * count, side, generator)
        near = torch.nn.functional.max_pool2d(a, 5, 1, 2)
        apart = (near * b).flatten(1).sum(1) == 0
        both.append((a + b)[apart])
        one.append(a[apart])
    return torch.cat(both)[:count], torch.cat(one)[:count]


def noisy(masks: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Masks plus noise of standard deviation sigma (count,), brought to [0, 1] per image."""
    noise = torch.randn(masks.shape, generator=generator, device=masks.device)
    images = masks + noise * sigma.view(-1, 1, 1, 1)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low)


def _draw(count: int, side: int, generator: torch.Generator) -> Tensor:
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    radius = (0.1 + 0.15 * uniform(count, 1)) * side
    jitter = torch.randn((count, 3), generator=generator, device=device) * 5 / 512 * side
    distance = (radius + jitter).abs()
    corners = torch.arange(3, device=device)
    angle = 2 * math.pi * (uniform(count, 1) + corners / 3)
    centre = uniform(count, 2, 1) * side
    x = centre[:, 0] + distance * angle.cos()
    y = centre[:, 1] + distance * angle.sin()
    points = (torch.arange(side * _FINE, device=device) + 0.5) / _FINE
    inside = torch.ones(count, side * _FINE, side * _FINE, dtype=torch.bool, device=device)
    for i in range(3):
        j = (i + 1) % 3
        along = (x[:, j] - x[:, i]).view(-1, 1, 1) * (points.view(1, -1, 1) - y[:, i, None, None])
        across = (y[:, j] - y[:, i]).view(-1, 1, 1) * (points.view(1, 1, -1) - x[:, i, None, None])
        inside &= along >= across
    share = inside.view(count, side, _FINE, side, _FINE).float().mean((2, 4))
    return (share > 0.5).float().unsqueeze(1)
