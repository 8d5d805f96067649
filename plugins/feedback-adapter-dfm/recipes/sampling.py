"""Drawing what is known about an image in training: scattered pixels, or a few clicks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["class_clicks", "clicks", "error_click", "log_uniform", "scattered"]


def scattered(share: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Masks (batch, height, width): each pixel is known with its image's probability, (batch,)."""
    draw = torch.rand((len(share), *size), generator=generator, device=share.device)
    return draw < share.view(-1, 1, 1)


def log_uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(count,) numbers between low and high, each order of magnitude as likely as another."""
    draw = torch.rand(count, generator=generator, device=generator.device)
    return low * (high / low) ** draw


def clicks(where: Tensor, count: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Masks (batch, height, width) of some pixels of regions.

    Args:
        where: (batch, height, width), true in the region.
        count: How many pixels of each image, (batch,). Fewer if the region is smaller.
        most: No image has more, at least 1.
        generator: On the same device.
    """
    draw = torch.rand(where.shape, generator=generator, device=where.device)
    flat = torch.where(where, draw, -1.0).flatten(1)
    top = flat.topk(most, 1)
    wanted = torch.arange(most, device=where.device) < count.view(-1, 1)
    taken = torch.zeros_like(flat, dtype=torch.bool)
    taken.scatter_(1, top.indices, wanted & (top.values >= 0))
    return taken.view_as(where)


def class_clicks(
    mask: Tensor, labels: int, count: Tensor, most: int, generator: torch.Generator
) -> Tensor:
    """Clicks on masks of labels (batch, height, width), each label as likely as another.

    Args:
        mask: Labels; those from `labels` on are never clicked.
        labels: K.
        count: How many clicks per image, (batch,).
        most: No image has more, at least 1.
        generator: On the same device.
    """
    one_hot = F.one_hot(mask.long().clamp(0, labels), labels + 1)[..., :labels]
    frequency = one_hot.sum((1, 2)).clamp(min=1)
    chance = (one_hot / frequency[:, None, None]).sum(-1)
    draw = torch.rand(chance.shape, generator=generator, device=mask.device)
    # The largest of log(u) / w are a weighted sample without replacement (Efraimidis, Spirakis).
    keys = torch.where(chance > 0, draw.clamp(min=1e-9).log() / chance.clamp(min=1e-9), -torch.inf)
    top = keys.flatten(1).topk(most, 1)
    wanted = torch.arange(most, device=mask.device) < count.view(-1, 1)
    taken = torch.zeros_like(keys.flatten(1), dtype=torch.bool)
    taken.scatter_(1, top.indices, wanted & top.values.isfinite())
    return taken.view_as(mask)


def error_click(predicted: Tensor, mask: Tensor, labels: int, reach: int = 12) -> Tensor:
    """The next click of a user who corrects: masks (batch, height, width) of one pixel each.

    It is the pixel around which most pixels have the same label and a wrong prediction.

    Args:
        predicted: Labels (batch, height, width).
        mask: The true labels; those from `labels` on are never clicked.
        labels: K.
        reach: Half the side of the square in which errors are counted, in pixels.
    """
    wrong = (predicted != mask) & (mask < labels)
    one_hot = F.one_hot(mask.long().clamp(0, labels), labels + 1)[..., :labels]
    errors = (one_hot * wrong.unsqueeze(-1)).permute(0, 3, 1, 2).float()
    side = 2 * reach + 1  # one direction after the other: 2 side additions instead of side squared
    rows = F.avg_pool2d(errors, (side, 1), 1, (reach, 0), divisor_override=1)
    around = F.avg_pool2d(rows, (1, side), 1, (0, reach), divisor_override=1)
    around = (around * errors).amax(1).flatten(1)
    best = around.max(1)
    taken = torch.zeros_like(around, dtype=torch.bool)
    taken.scatter_(1, best.indices[:, None], best.values[:, None] > 0)
    return taken.view_as(mask)
