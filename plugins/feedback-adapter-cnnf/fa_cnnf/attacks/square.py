"""Square: random search over squares, which needs no gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fa_cnnf.attacks.base import Ball, Objective, Worst

__all__ = ["share_of_pixels", "square"]


def share_of_pixels(query: int, first: float = 0.8) -> float:
    """How much of the image a square covers: halved after fixed numbers of queries.

    They don't depend on the budget, so that more queries never make a weaker attack.
    """
    halvings = sum(query > p for p in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    return first / 2**halvings


def square(
    objective: Objective, x: Tensor, eps: float, queries: int = 5000, seed: int = 0
) -> Tensor:
    """Square in the maximum norm; returns the worst images met.

    Source: Andriushchenko et al., 'Square attack: a query-efficient black-box adversarial attack
    via random search' (ECCV 2020), algorithms 1 and 2.

    Args:
        objective: What to increase; only its values are used. The paper's loss is "margin".
        x: Clean images (batch, channels, height, width) in [-1, 1].
        eps: Largest change, in the units of `x`.
        queries: Forward passes per image, at least 1.
        seed: Of the search; all images go through the same places and signs.
    """
    generator = torch.Generator().manual_seed(seed)
    ball, worst = Ball(x, eps), Worst(x, not objective.surrogate)
    rows = worst.left()
    channels, height, width = x.shape[1:]

    def signs(*shape: int) -> Tensor:
        return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(x)

    with torch.no_grad():
        images = ball.project(x + eps * signs(channels, 1, width), rows)  # vertical stripes
        worst.update(rows, images, *objective(images, rows))
        for query in range(1, queries):
            rows = worst.left()
            if not len(rows):
                break
            side = math.sqrt(share_of_pixels(query) * height * width)
            side = min(max(round(side), 1), height, width)
            top = int(torch.randint(0, height - side + 1, (), generator=generator))
            left = int(torch.randint(0, width - side + 1, (), generator=generator))
            change = torch.zeros_like(x[:1])
            change[..., top : top + side, left : left + side] = 2 * eps * signs(channels, 1, 1)
            images = ball.project(worst.images[rows] + change, rows)
            worst.update(rows, images, *objective(images, rows))
    return worst.images
