"""SPSA: gradient ascent on a gradient that is estimated from values."""

from __future__ import annotations

import torch
from torch import Tensor

from fa_cnnf.attacks.base import Ball, Objective, Worst

__all__ = ["spsa"]


def spsa(
    objective: Objective,
    x: Tensor,
    eps: float,
    steps: int = 20,
    samples: int = 64,
    seed: int = 0,
    delta: float = 0.02,
) -> Tensor:
    """SPSA in the maximum norm; returns the worst images met.

    Two-sided differences along random signs, averaged, followed by steps of eps / 4 (after the
    20th eps / 16) along the sign of the average. The paper follows it with Adam; 2 x `samples`
    x `steps` forward passes per image. Source: Uesato et al., 'Adversarial risk and the dangers
    of evaluating against weak attacks' (ICML 2018), section 4.

    Args:
        objective: What to increase; only its values are used.
        x: Clean images (batch, ...) in [-1, 1].
        eps: Largest change, in the units of `x`.
        steps: At least 0; 0 tries the clean image alone.
        samples: Pairs of values that a gradient is estimated from, at least 1.
        seed: Of the random signs, which all images share.
        delta: How far to look, in the units of `x`.
    """
    generator = torch.Generator().manual_seed(seed)
    ball, worst = Ball(x, eps), Worst(x, not objective.surrogate)
    rows, images = worst.left(), x.clone()
    with torch.no_grad():
        worst.update(rows, images, *objective(images, rows))
        for step in range(steps):
            rows = worst.left()
            if not len(rows):
                break
            here, gradient = images[rows], torch.zeros_like(images[rows])
            for _ in range(samples):
                sign = torch.randint(0, 2, x.shape[1:], generator=generator).to(x) * 2 - 1
                up, down = (objective(here + s * delta * sign, rows)[0] for s in (1, -1))
                gradient += (up - down).view(-1, *[1] * (x.ndim - 1)) * sign
            size = eps / 4 if step < 20 else eps / 16
            images[rows] = ball.project(here + size * gradient.sign(), rows)
            worst.update(rows, images[rows], *objective(images[rows], rows))
    return worst.images
