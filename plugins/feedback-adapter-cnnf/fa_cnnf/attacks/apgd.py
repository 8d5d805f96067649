"""Auto-PGD: ascent with momentum whose step size halves where progress stops."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from fa_cnnf.attacks.base import Objective, begin

__all__ = ["apgd", "apgd_targeted", "checkpoints"]


def checkpoints(steps: int) -> list[int]:
    """Iterations at which step sizes are looked at (section 3.3 of the paper)."""
    points, p, before = [], 0.22, 0.0
    while p < 1:
        points.append(math.ceil(round(p * steps, 6)))
        p, before = p + max(p - before - 0.03, 0.06), p
    return sorted(set(points))


def apgd(objective: Objective, x: Tensor, start: Tensor, eps: float, steps: int = 40) -> Tensor:
    """APGD in the maximum norm; returns the worst images met.

    Source: Croce and Hein, 'Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks' (ICML 2020), algorithm 1, with its constants.

    Args:
        objective: What to increase; with `loss="ce"` this is APGD-CE.
        x: Clean images (batch, ...) in [-1, 1].
        start: Where to start, in [-1, 1] times eps, shaped as `x`.
        eps: Largest change, in the units of `x`.
        steps: At least 0; 0 tries the start alone.
    """
    ball, worst, images = begin(objective, x, start, eps)
    rows = worst.left()
    before, gradients = images.clone(), torch.zeros_like(x)
    best, best_gradients = images.clone(), torch.zeros_like(x)
    most = torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)  # loss alone
    size = torch.full_like(most, 2 * eps)
    rises = torch.zeros_like(most)
    old_losses, old_most, old_size = most.clone(), most.clone(), size.clone()
    points, last = checkpoints(steps), 0
    wide = (-1,) + (1,) * (x.ndim - 1)
    for step in range(steps + 1):
        here = images[rows].requires_grad_()
        losses, wrong = objective(here, rows)
        (gradients[rows],) = torch.autograd.grad(losses.sum(), here)
        losses = losses.detach()
        worst.update(rows, here, losses, wrong)
        up = losses > most[rows]
        risen = rows[up]
        most[risen], best[risen] = losses[up], images[risen]
        best_gradients[risen] = gradients[risen]
        rises[rows] += (losses > old_losses[rows]) & (step > 0)
        old_losses[rows] = losses
        rows = worst.left()
        if not len(rows) or step == steps:
            break
        if step in points:
            slow = rises < 0.75 * (step - last)
            stuck = (old_size == size) & (old_most == most)
            old_size, old_most, last = size.clone(), most.clone(), step
            halve = slow | stuck
            size = torch.where(halve, size / 2, size)
            images[halve], gradients[halve] = best[halve], best_gradients[halve]
            rises.zero_()
        now, share = images[rows], 0.75 if step else 1.0
        moved = ball.project(now + size[rows].view(wide) * gradients[rows].sign(), rows)
        mixed = now + share * (moved - now) + (1 - share) * (now - before[rows])
        before[rows], images[rows] = now, ball.project(mixed, rows)
    return worst.images


def apgd_targeted(
    objective: Objective,
    x: Tensor,
    start: Tensor,
    eps: float,
    steps: int = 40,
    targets: int = 9,
) -> Tensor:
    """APGD-T: APGD on the targeted DLR loss, for one wrong class after the other.

    Args:
        objective: Its loss and targets are replaced.
        x: Clean images (batch, ...) in [-1, 1].
        start: As for `apgd`.
        eps: Largest change, in the units of `x`.
        steps: Of each run.
        targets: How many wrong classes to try, the likeliest of the clean image first.
    """
    rows = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        logits = objective.verdict(objective.views(x))
    logits = logits.scatter(1, objective.labels[:, None], -torch.inf)
    order = logits.argsort(1, descending=True)[:, : min(targets, logits.shape[1] - 1)]
    worst = x.clone()
    for column in order.T:
        found = apgd(
            dataclasses.replace(
                objective, labels=objective.labels[rows], loss="dlr", targets=column[rows]
            ),
            x[rows],
            start[rows],
            eps,
            steps,
        )
        with torch.no_grad():
            fooled = objective.verdict(objective.views(found)).argmax(-1) != objective.labels[rows]
        worst[rows] = found
        rows = rows[~fooled]
        if not len(rows):
            break
    return worst
