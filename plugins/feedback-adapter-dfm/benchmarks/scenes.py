"""Training and scoring networks on CamVid, with what is known about a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from augment import zoom_and_flip
from camvid_nets import CLASSES, SIZE, SceneMethod
from fit import Batch, Settings, fit
from methods import macs, parameters
from packed import camvid
from rows import Measured
from sampling import class_clicks, error_click, log_uniform, scattered
from torch import Tensor

from fa_dfm import DFM, Known

__all__ = ["CONDITIONS", "Frames", "read", "score", "train"]

BATCH, SCORED = 16, 64

Frames = tuple[Tensor, Tensor]
"""Images (n, 3, 180, 240) in [0, 1] and masks (n, 180, 240), on the device."""


def read(folder: Path, split: str, device: str, limit: int | None = None) -> Frames:
    """One split, decoded once and kept on the device."""
    images, masks = camvid(folder, split)
    return images[:limit].to(device).float() / 255, masks[:limit].to(device).long()


def network_input(images: Tensor) -> Tensor:
    """Images in [0, 1] as EfficientNet-lite0 takes them."""
    return (images - 0.5) * 2


def train(
    method: SceneMethod,
    frames: Frames,
    seed: int,
    steps: int,
    seconds: float | None,
    weights: Path | None,
) -> tuple[DFM, dict[str, Any]]:
    """Train one network; returns it and how it went."""
    net = method.make(seed, weights)
    images, masks = frames
    device = images.device

    def draw(net: DFM, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(images), (BATCH,), generator=generator, device=device)
        views, labels = zoom_and_flip(images[rows], masks[rows], generator, CLASSES)
        views = network_input(views)
        told = _told(net, views, labels, generator)
        return Batch(views, labels, _known(labels, told))

    settings = Settings(
        steps, lr=method.lr, weight_decay=1e-3, looks=method.looks, seconds=seconds, seed=seed
    )
    return net, fit(net, draw, settings, device=device.type)


def _known(labels: Tensor, told: Tensor) -> Known:
    return Known.from_mask(torch.where(told, labels, -1), CLASSES)


def _told(net: DFM, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Known pixels in training: nothing, scattered pixels, or up to three clicks.

    Half of the images with clicks get theirs anywhere, each class as likely as another, and
    half where the network is wrong, as users do it.
    """
    count, device = len(labels), labels.device
    scatter = scattered(log_uniform(count, 1e-3, 1e-1, generator), SIZE, generator)
    number = torch.randint(1, 4, (count,), generator=generator, device=device)
    anywhere = class_clicks(labels, CLASSES, number, 3, generator)
    with torch.no_grad():
        wrong = error_click(net(images, None, 1).argmax(1), labels, CLASSES)
    kind = torch.rand((count, 1, 1), generator=generator, device=device)
    told = torch.where(kind < 0.35, scatter, torch.where(kind < 0.525, anywhere, wrong))
    return told & (kind < 0.7)


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
            told = told | error_click(predict(_known(labels, told)).argmax(1), labels, CLASSES)
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
    ways: dict[str, dict[str, Any]] = {name: {}}
    if looks > 1:
        ways |= {f"{name}, cut": {"cut": True}, f"{name}, shuffled": {"shuffle": True}}
        ways |= {f"{name}, {t} looks": {"steps": t} for t in (1, 2 * looks)}
    sample = torch.zeros(1, 3, *SIZE, device=frames[0].device)
    cost, size = sum(macs(n, sample) for n in nets), sum(map(parameters, nets))
    measured = []
    for condition, tell in CONDITIONS.items():
        for way, how in ways.items():
            generator = torch.Generator(frames[0].device).manual_seed(77)
            after, before = _counts(), _counts()
            for i in range(0, len(frames[0]), SCORED):
                part = slice(i, i + SCORED)
                images, labels = network_input(frames[0][part]), frames[1][part]

                def predict(known: Known | None, images: Tensor = images, how: Any = how) -> Tensor:
                    each = [n.unroll(images, known, **how).logits[-1].softmax(1) for n in nets]
                    return torch.stack(each).mean(0)

                told = None if tell is None else tell(predict, labels, generator)
                known = None if told is None else _known(labels, told)
                left = labels if told is None else torch.where(told, CLASSES, labels)
                after += _counts(predict(known).argmax(1), left)
                if tell is not None:
                    before += _counts(predict(None).argmax(1), left)
            used = cost * how.get("steps", looks) // looks
            numbers = {"mIoU": after} | ({"mIoU before": before} if tell is not None else {})
            measured += [
                Measured(way, condition, metric, _mean_iou(counts), seed, used, size)
                for metric, counts in numbers.items()
            ]
    return measured


def _counts(predicted: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
    """How often each label (rows) was predicted as each (columns)."""
    if predicted is None or labels is None:
        return torch.zeros(CLASSES, CLASSES, dtype=torch.long)
    counted = labels < CLASSES
    pairs = labels[counted] * CLASSES + predicted[counted]
    return torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES).cpu()


def _mean_iou(counts: Tensor) -> float:
    both = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float((both / union.clamp(min=1)).mean() * 100)
