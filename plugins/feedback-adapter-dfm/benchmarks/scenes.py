"""Scoring networks on CamVid, with what is known about a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from camvid_nets import CLASSES, SIZE
from camvid_task import Frames, known, network_input
from methods import macs, parameters
from rows import Measured, ways
from sampling import class_clicks, error_click, scattered
from torch import Tensor

from fa_dfm import DFM, Known

__all__ = ["CONDITIONS", "counts", "mean_iou", "score"]

SCORED = 64
"""Frames at a time."""


def pixels(share: float) -> Callable[..., Tensor]:
    """Scattered known pixels."""

    def tell(_predict: Any, labels: Tensor, generator: torch.Generator) -> Tensor:
        chance = torch.full((len(labels),), share, device=labels.device)
        return scattered(chance, SIZE, generator) & (labels < CLASSES)

    return tell


def corrections(number: int) -> Callable[..., Tensor]:
    """Clicks one after another, each where the prediction given the earlier ones is worst."""

    def tell(
        predict: Callable[[Known], Tensor], labels: Tensor, _generator: torch.Generator
    ) -> Tensor:
        told = torch.zeros_like(labels, dtype=torch.bool)
        for _ in range(number):
            told = told | error_click(predict(known(labels, told)).argmax(1), labels, CLASSES)
        return told

    return tell


def anywhere(number: int) -> Callable[..., Tensor]:
    """Clicks anywhere, each class as likely as another."""

    def tell(_predict: Any, labels: Tensor, generator: torch.Generator) -> Tensor:
        count = torch.full((len(labels),), number, device=labels.device)
        return class_clicks(labels, CLASSES, count, number, generator)

    return tell


CONDITIONS = {
    "nothing known": None,
    "1% of pixels": pixels(0.01),
    "3 clicks": corrections(3),
    "3 clicks anywhere": anywhere(3),
}
"""What is known, by condition."""


@torch.no_grad()
def score(name: str, nets: Sequence[DFM], frames: Frames, seed: int) -> list[Measured]:
    """Mean IoU over classes, in percent, of the pixels that aren't known.

    Of every condition there are two numbers: `mIoU`, and `mIoU before`, that of the same
    pixels when nothing is known.

    Args:
        name: Of the method.
        nets: One network, or the members of an ensemble, whose probabilities are averaged.
        frames: Of the split that is to be scored.
        seed: Of the training.
    """
    looks = nets[0].steps
    sample = torch.zeros(1, 3, *SIZE, device=frames[0].device)
    cost, size = sum(macs(n, sample) for n in nets), sum(map(parameters, nets))
    measured = []
    for condition, tell in CONDITIONS.items():
        for way, how in ways(name, looks).items():
            generator = torch.Generator(frames[0].device).manual_seed(77)
            after, before = counts(), counts()
            for i in range(0, len(frames[0]), SCORED):
                part = slice(i, i + SCORED)
                images, labels = network_input(frames[0][part]), frames[1][part]

                def predict(facts: Known | None, images: Tensor = images, how: Any = how) -> Tensor:
                    each = [n.unroll(images, facts, **how).logits[-1].softmax(1) for n in nets]
                    return torch.stack(each).mean(0)

                told = None if tell is None else tell(predict, labels, generator)
                facts = None if told is None else known(labels, told)
                left = labels if told is None else torch.where(told, CLASSES, labels)
                after += counts(predict(facts).argmax(1), left)
                if tell is not None:
                    before += counts(predict(None).argmax(1), left)
            used = cost * how.get("steps", looks) // looks
            numbers = {"mIoU": after} | ({"mIoU before": before} if tell is not None else {})
            measured += [
                Measured(way, condition, metric, mean_iou(counts), seed, used, size)
                for metric, counts in numbers.items()
            ]
    return measured


def counts(predicted: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
    """How often each label (rows) was predicted as each (columns)."""
    if predicted is None or labels is None:
        return torch.zeros(CLASSES, CLASSES, dtype=torch.long)
    counted = labels < CLASSES
    pairs = labels[counted] * CLASSES + predicted[counted]
    return torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES).cpu()


def mean_iou(counts: Tensor) -> float:
    both = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float((both / union.clamp(min=1)).mean() * 100)
