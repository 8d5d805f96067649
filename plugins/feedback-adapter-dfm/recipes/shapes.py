"""White triangles on black, and noise over them, as in the paper, made on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    *("JITTER", "LARGEST", "SMALLEST", "corners", "fill"),
    *("noisy", "triangles", "two_triangles"),
]

SMALLEST, LARGEST, JITTER = 0.1, 0.25, 5 / 512
"""Of the published triangles' radius, and how it varies from corner to corner, in sides."""


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

    radius = (SMALLEST + (LARGEST - SMALLEST) * uniform(count, 1)) * side
    jitter = torch.randn((count, 3), generator=generator, device=device) * JITTER * side
    angle = 2 * math.pi * uniform(count, 1)
    centre = uniform(count, 2) * side
    return fill(corners(centre, angle, radius + jitter), side).unsqueeze(1)


def corners(centre: Tensor, angle: Tensor, distance: Tensor) -> Tensor:
    """Corners (..., 3, 2), x and y in pixels.

    Args:
        centre: (..., 2).
        angle: Of the first corner, (..., 1), in radians; the others follow by a third of a turn.
        distance: Of the corners from the centre, (..., 3).
    """
    third = torch.arange(3, device=angle.device) * (2 * math.pi / 3)
    direction = torch.stack([(angle + third).cos(), (angle + third).sin()], -1)
    return centre.unsqueeze(-2) + distance.abs().unsqueeze(-1) * direction


def fill(corners: Tensor, side: int, fine: int = 3) -> Tensor:
    """Masks (..., side, side): 1 where more than half of a pixel is inside the triangle.

    Args:
        corners: (..., 3, 2).
        side: Of the masks.
        fine: Points per pixel and direction of which more than half are to be inside.
    """
    points = (torch.arange(side * fine, device=corners.device) + 0.5) / fine
    inside: Tensor | None = None
    for i in range(3):
        x, y = corners[..., i, :, None].unbind(-2)
        dx, dy = (corners[..., (i + 1) % 3, :, None] - corners[..., i, :, None]).unbind(-2)
        across, along = dx * (points - y), dy * (points - x)  # (..., rows) and (..., columns)
        half = across.unsqueeze(-1) >= along.unsqueeze(-2)
        inside = half if inside is None else inside & half
    assert inside is not None
    if fine == 1:
        return inside.float()
    pixels = inside.unflatten(-1, (side, fine)).unflatten(-3, (side, fine))
    return (pixels.sum((-1, -3)) > fine**2 / 2).float()
