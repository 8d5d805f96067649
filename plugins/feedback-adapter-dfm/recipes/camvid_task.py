"""Labelling CamVid's frames: the data, what is known of them in training, and the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from augment import zoom_and_flip
from camvid_nets import CLASSES, SIZE, SceneMethod
from fit import Batch, Settings, fit
from packed import camvid
from sampling import class_clicks, error_click, log_uniform, scattered
from torch import Tensor

from fa_dfm import DFM, Known

__all__ = ["Frames", "known", "network_input", "read", "train"]

FINE_LR = 5e-4
"""Largest learning rate of networks that start from a trained one."""

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
    weights: Path | None,
    *,
    control: Path | None = None,
    batch: int = 16,
    seconds: float | None = None,
    state_file: Path | None = None,
    report: Callable[[float, float], None] | None = None,
) -> DFM:
    """Train one network.

    Args:
        method: What it is.
        frames: Of the training split.
        seed: Of everything random.
        steps: Training steps.
        weights: See `SceneMethod.make`.
        control: See `SceneMethod.make`.
        batch: Frames of a training step.
        seconds: See `fit.Settings`.
        state_file: See `fit.fit`.
        report: See `fit.fit`.
    """
    net = method.make(seed, weights, control)
    images, masks = frames
    device = images.device

    def draw(net: DFM, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(images), (batch,), generator=generator, device=device)
        views, labels = zoom_and_flip(images[rows], masks[rows], generator, CLASSES)
        views = network_input(views)
        told = _told(net, views, labels, generator)
        return Batch(views, labels, known(labels, told))

    settings = Settings(
        steps,
        lr=method.lr if control is None else FINE_LR,
        feedback_lr=10,
        weight_decay=1e-3,
        looks=method.looks,
        seconds=seconds,
        seed=seed,
    )
    fit(net, draw, settings, device=device.type, state_file=state_file, report=report)
    return net


def known(labels: Tensor, told: Tensor) -> Known:
    """What is known where a mask (batch, height, width) says so."""
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
    kind = torch.rand(count, generator=generator, device=device)
    told = torch.where((kind < 0.35).view(-1, 1, 1), scatter, anywhere)
    told &= (kind < 0.525).view(-1, 1, 1)
    corrected = (kind >= 0.525) & (kind < 0.7)
    if bool(corrected.any()):
        with torch.no_grad():
            predicted = net(images[corrected], None, 1).argmax(1)
        told[corrected] = error_click(predicted, labels[corrected], CLASSES)
    return told
