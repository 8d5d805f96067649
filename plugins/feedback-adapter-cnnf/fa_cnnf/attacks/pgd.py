"""Projected gradient ascent with steps of fixed sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from fa_cnnf.attacks.base import Objective, begin

__all__ = ["pgd"]


def pgd(objective: Objective, x: Tensor, start: Tensor, eps: float, steps: int = 40) -> Tensor:
    """Ascend by signs of gradients in the maximum norm; returns the worst images met.

    Step sizes don't depend on `steps` (eps / 4, after the 20th eps / 16), and the worst image
    is kept, so that more steps never make a weaker attack. Source: Madry et al., 'Towards deep
    learning models resistant to adversarial attacks' (ICLR 2018).

    Args:
        objective: What to increase.
        x: Clean images (batch, ...) in [-1, 1].
        start: Where to start, in [-1, 1] times eps, shaped as `x`.
        eps: Largest change, in the units of `x`.
        steps: At least 0; 0 tries the start alone.
    """
    ball, worst, images = begin(objective, x, start, eps)
    rows = worst.left()
    for step in range(steps + 1):
        here = images[rows].requires_grad_(step < steps)
        losses, wrong = objective(here, rows)
        if step < steps:
            (gradient,) = torch.autograd.grad(losses.sum(), here)
            size = eps / 4 if step < 20 else eps / 16
            images[rows] = ball.project(here.detach() + size * gradient.sign(), rows)
        worst.update(rows, here, losses, wrong)
        rows = worst.left()
        if not len(rows):
            break
    return worst.images
