"""Scoring the small networks on triangles, which three of the tables share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from methods import macs, parameters
from rows import Measured
from torch import Tensor
from triangle_task import Scenes, Task, known, masks, network_input

from fa_dfm import DFM, Known

__all__ = ["THRESHOLDS", "iou", "prepare", "score"]

THRESHOLDS = tuple(x / 4 for x in range(-16, 9))
"""Of the logits; each row takes the best on validation images."""


@torch.no_grad()
def score(
    name: str,
    nets: Sequence[DFM],
    task: Task,
    sigmas: Sequence[float],
    told: dict[str, Any],
    seed: int,
    device: str,
) -> list[Measured]:
    """Foreground IoU of the pixels that aren't known, thresholds chosen on validation images.

    Args:
        name: Of the method.
        nets: One network, or the members of an ensemble, whose probabilities are averaged.
        task: What was trained.
        sigmas: Noises of the test.
        told: `{condition: function (white, meant, generator) -> known pixels or None}`.
        seed: Of the training.
        device: Where the networks are.
    """
    validation, test = (masks(task, n, s, device) for n, s in ((task.test // 2, 8), (task.test, 7)))
    looks = nets[0].steps
    ways = {name: {}}
    if looks > 1:
        ways |= {f"{name}, cut": {"cut": True}, f"{name}, shuffled": {"shuffle": True}}
        ways |= {f"{name}, {t} looks": {"steps": t} for t in (1, 2 * looks)}
    sample = torch.zeros(1, 1, task.side, task.side, device=device)
    cost, size = sum(macs(n, sample) for n in nets), sum(map(parameters, nets))
    measured = []
    for sigma in sigmas:
        for condition, tell in told.items():
            prepared = [prepare(s, sigma, tell, 50 + i) for i, s in enumerate((validation, test))]
            for way, how in ways.items():
                outputs = [_logits(nets, images, facts, how) for images, facts in prepared]
                threshold = max(
                    THRESHOLDS, key=lambda t: iou(outputs[0], validation.meant, prepared[0][1], t)
                )
                value = iou(outputs[1], test.meant, prepared[1][1], threshold)
                used = cost * how.get("steps", looks) // looks
                text = f"{task.side} px, sigma {sigma:g}{condition}"
                measured.append(Measured(way, text, "IoU", value, seed, used, size))
    return measured


def prepare(scenes: Scenes, sigma: float, tell: Any, seed: int) -> tuple[Tensor, Known | None]:
    device = scenes.meant.device
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.full((len(scenes),), float(sigma), device=device)
    images = network_input(scenes.white, noise, generator)
    mask = tell(scenes.white, scenes.meant, generator)
    return images, None if mask is None else known(mask, scenes.meant)


def _logits(
    nets: Sequence[DFM], images: Tensor, facts: Known | None, how: dict[str, Any]
) -> Tensor:
    each = [net.unroll(images, facts, **how).logits[-1] for net in nets]
    if len(each) == 1:
        return each[0]
    return torch.logit(torch.stack(each).sigmoid().mean(0), 1e-6)


def iou(logits: Tensor, truth: Tensor, facts: Known | None, threshold: float) -> float:
    """Mean over images of the foreground's IoU in percent, among pixels that aren't known."""
    unknown = torch.ones_like(truth) if facts is None else (facts.weight == 0).to(truth.dtype)
    found, wanted = (logits > threshold) * unknown, truth * unknown
    overlap = (found * wanted).flatten(1).sum(1)
    union = ((found + wanted) > 0).flatten(1).sum(1)
    return float((overlap / union.clamp(min=1)).mean() * 100)
