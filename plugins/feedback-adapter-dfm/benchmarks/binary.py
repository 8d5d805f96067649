"""Training and scoring the small networks on triangles: what three of the tables share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from fit import Batch, Settings, fit
from methods import Method, macs, parameters
from rows import Measured
from sampling import clicks, log_uniform, scattered
from shapes import noisy, triangles, two_triangles
from torch import Tensor

from fa_dfm import DFM, Known

__all__ = ["Scenes", "Task", "masks", "score", "train"]

THRESHOLDS = tuple(x / 4 for x in range(-16, 9))
"""Of the logits; each row takes the best on validation images."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be seen in the images.

    Args:
        side: Of the images, in pixels.
        pairs: Two triangles, of which a click says the one that is meant.
        examples: Training images.
        sigma: Largest noise in training.
        steps: Training steps of 16 images.
        test: Test images; half as many validate.
    """

    side: int = 48
    pairs: bool = False
    examples: int = 16
    sigma: float = 3.0
    steps: int = 1000
    test: int = 400


@dataclasses.dataclass(frozen=True)
class Scenes:
    """What is white, (n, 1, side, side), and what of it is meant."""

    white: Tensor
    meant: Tensor

    def __len__(self) -> int:
        return len(self.meant)


def masks(task: Task, count: int, seed: int, device: str) -> Scenes:
    """Scenes that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    if task.pairs:
        white, meant = two_triangles(count, task.side, generator)
    else:
        white = meant = triangles(count, task.side, generator)
    return Scenes(white.to(device), meant.to(device))


def network_input(white: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Noisy images, centred and scaled as the checkpoints' transform does it."""
    return (noisy(white, sigma, generator) - 0.5) * 4


def known(mask: Tensor, meant: Tensor) -> Known:
    """Known pixels (batch, height, width) of what is meant."""
    return Known(mask.unsqueeze(1).to(meant.dtype), meant)


def train(method: Method, task: Task, seed: int, device: str, seconds: float | None) -> DFM:
    """Train one network on one task."""
    net = method.make(task.side, seed)
    scenes = masks(task, task.examples, 1000 + seed % 100, device)

    def draw(_net: DFM, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(scenes), (16,), generator=generator, device=device)
        white, meant = _flipped(scenes.white[rows], scenes.meant[rows], generator)
        noise = torch.rand(16, generator=generator, device=device) * task.sigma
        images = network_input(white, noise, generator)
        return Batch(images, meant, known(_told(task, white, meant, generator), meant))

    settings = Settings(
        task.steps,
        lr=method.lr,
        looks=method.looks,
        truncate=method.truncate,
        seconds=seconds,
        seed=seed,
    )
    fit(net, draw, settings, device="cuda" if device == "cuda" else "cpu")
    return net


def _told(task: Task, white: Tensor, meant: Tensor, generator: torch.Generator) -> Tensor:
    """What is known in training: of two triangles 1 or 2 clicks, else pixels in 70% of images."""
    count, device = len(meant), meant.device
    if task.pairs:
        inside = 1 + torch.randint(2, (count,), generator=generator, device=device)
        outside = torch.randint(2, (count,), generator=generator, device=device)
        other = (white > meant)[:, 0]
        hit = clicks(meant[:, 0] > 0, inside, 2, generator)
        return hit | clicks(other, outside, 1, generator)
    share = log_uniform(count, 1e-3, 1e-1, generator)
    some = torch.rand(count, generator=generator, device=device) < 0.7
    return scattered(share * some, (task.side, task.side), generator)


def _flipped(a: Tensor, b: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    for axis in (2, 3):
        flip = torch.rand((len(a), 1, 1, 1), generator=generator, device=a.device) < 0.5
        a, b = torch.where(flip, a.flip(axis), a), torch.where(flip, b.flip(axis), b)
    return a, b


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
            prepared = [_prepare(s, sigma, tell, 50 + i) for i, s in enumerate((validation, test))]
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


def _prepare(scenes: Scenes, sigma: float, tell: Any, seed: int) -> tuple[Tensor, Known | None]:
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
