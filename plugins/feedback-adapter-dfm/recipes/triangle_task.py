"""Segmenting noisy triangles: the scenes, what is known of them in training, and the training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from fit import Batch, Settings, fit
from methods import Method
from sampling import clicks, log_uniform, scattered
from shapes import noisy, triangles, two_triangles
from torch import Tensor

from fa_dfm import DFM, Known

__all__ = ["Scenes", "Task", "known", "masks", "network_input", "train"]


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


def train(
    method: Method,
    task: Task,
    seed: int = 0,
    device: str = "cpu",
    *,
    seconds: float | None = None,
    state_file: Path | None = None,
    report: Callable[[float, float], None] | None = None,
) -> DFM:
    """Train one network on one task. See `fit.fit` for the last three arguments."""
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
    fit(net, draw, settings, device=device, state_file=state_file, report=report)
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
