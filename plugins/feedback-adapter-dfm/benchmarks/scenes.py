"""Scoring networks on CamVid, with what is known about a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from camvid_nets import CLASSES, SIZE
from camvid_task import Frames, known, network_input
from methods import macs, parameters
from rows import Measured, ways
from sampling import error_click, scattered
from torch import Tensor

from fa_dfm import DFM

__all__ = ["CONDITIONS", "corrections", "counts", "mean_iou", "pixels", "score", "score_way"]

SCORED = 8
"""Frames at a time."""


Predict = Callable[[Tensor], Tensor]
"""From which pixels are known, (batch, height, width), to the predicted labels."""

Tell = Callable[[Predict, Tensor, Tensor, torch.Generator], Tensor]
"""Which pixels are told, from how the network predicts, its labels when nothing is known, the true
ones, and the source of chance."""


def nothing(_predict: Predict, _alone: Tensor, labels: Tensor, _generator: Any) -> Tensor:
    """No pixel."""
    return torch.zeros_like(labels, dtype=torch.bool)


def pixels(share: float) -> Tell:
    """Scattered known pixels."""

    def tell(_predict: Predict, _alone: Tensor, labels: Tensor, generator: Any) -> Tensor:
        chance = torch.full((len(labels),), share, device=labels.device)
        return scattered(chance, SIZE, generator) & (labels < CLASSES)

    return tell


def corrections(number: int) -> Tell:
    """Clicks one after another, each where the prediction given the earlier ones is worst."""

    def tell(predict: Predict, alone: Tensor, labels: Tensor, _generator: Any) -> Tensor:
        told = nothing(predict, alone, labels, None)
        for i in range(number):
            predicted = predict(told) if i else alone
            told = told | error_click(predicted, labels, CLASSES)
        return told

    return tell


NOTHING = "nothing known"

CONDITIONS = {
    NOTHING: nothing,
    "1% of pixels": pixels(0.01),
    "3 clicks": corrections(3),
}
"""What is known, by condition."""


def score(name: str, nets: Sequence[DFM], frames: Frames, seed: int) -> list[Measured]:
    """Mean IoU over classes, in percent, of the pixels that aren't known, looking as trained and
    with the controls of a loop.

    Of every condition there are two numbers: `mIoU`, and `mIoU before`, that of the same
    pixels when nothing is known.

    Args:
        name: Of the method.
        nets: One network, or the members of an ensemble, whose probabilities are averaged.
        frames: Of the split that is to be scored.
        seed: Of the training.
    """
    found = ways(name, nets[0].steps).items()
    return [one for way, how in found for one in score_way(way, nets, frames, seed, how)]


@torch.no_grad()
def score_way(
    name: str, nets: Sequence[DFM], frames: Frames, seed: int, how: dict[str, Any]
) -> list[Measured]:
    """What `score` measures, for one way of looking.

    Args:
        name: Of the method and the way.
        nets: See `score`.
        frames: See `score`.
        seed: See `score`.
        how: Arguments of `DFM.unroll`.
    """
    looks = how.get("steps", nets[0].steps)
    sample = torch.zeros(1, 3, *SIZE, device=frames[0].device)
    cost, size = sum(macs(n, sample, looks=looks) for n in nets), sum(map(parameters, nets))
    generator = torch.Generator(frames[0].device).manual_seed(77)
    after = {condition: counts() for condition in CONDITIONS}
    before = {condition: counts() for condition in CONDITIONS}
    for i in range(0, len(frames[0]), SCORED):
        part = slice(i, i + SCORED)
        images, labels = network_input(frames[0][part]), frames[1][part]

        def predict(told: Tensor, images: Tensor = images, labels: Tensor = labels) -> Tensor:
            facts = known(labels, told)
            each = [n.unroll(images, facts, **how).logits[-1].softmax(1) for n in nets]
            return torch.stack(each).mean(0).argmax(1)

        alone = predict(torch.zeros_like(labels, dtype=torch.bool))
        for condition, tell in CONDITIONS.items():
            told = tell(predict, alone, labels, generator)
            left = torch.where(told, CLASSES, labels)
            after[condition] += counts(predict(told) if told.any() else alone, left)
            before[condition] += counts(alone, left)
    return [
        Measured(name, condition, metric, mean_iou(found), seed, cost, size)
        for condition in CONDITIONS
        for metric, found in (("mIoU", after[condition]), ("mIoU before", before[condition]))
        if condition != NOTHING or metric == "mIoU"
    ]


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
