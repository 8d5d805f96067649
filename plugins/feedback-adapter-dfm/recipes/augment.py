"""Random views of images, and of masks with them, made on the device where they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop_and_flip", "zoom_and_flip"]


def crop_and_flip(images: Tensor, generator: torch.Generator, margin: int = 4) -> Tensor:
    """Images (batch, channels, h, w) moved by up to `margin` pixels, half of them mirrored."""
    count, _, height, width = images.shape
    device = images.device
    shift = torch.randint(0, 2 * margin + 1, (2, count, 1), generator=generator, device=device)
    rows = torch.arange(height, device=device) + shift[0]
    columns = torch.arange(width, device=device) + shift[1]
    mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (margin,) * 4)
    at = torch.arange(count, device=device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def zoom_and_flip(
    images: Tensor, masks: Tensor, generator: torch.Generator, outside: int
) -> tuple[Tensor, Tensor]:
    """Random views: .75 to 2 times as large, anywhere, half mirrored, other light.

    Args:
        images: (batch, 3, h, w) in [0, 1].
        masks: Labels (batch, h, w).
        generator: On the same device.
        outside: The label of what lies outside the frame.
    """
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        draw = torch.rand((count, *shape), generator=generator, device=device)
        return low + (high - low) * draw

    zoom = 0.75 * (2 / 0.75) ** uniform(0, 1)
    reach = (1 - 1 / zoom).abs()
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = mirror / zoom, 1 / zoom
    theta[:, :, 2] = reach[:, None] * uniform(-1, 1, 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    views = F.grid_sample(images, grid, align_corners=False)
    inside = (masks.float() - outside).unsqueeze(1)  # what is outside the grid reads as 0
    labels = F.grid_sample(inside, grid, mode="nearest", align_corners=False)
    light, contrast = uniform(-0.15, 0.15, 1, 1, 1), uniform(0.75, 1.25, 1, 1, 1)
    views = ((views - 0.5) * contrast + 0.5 + light).clamp(0, 1)
    return views, (labels + outside).round().long().squeeze(1)
