"""Naming CIFAR-10's images: the data, the networks and the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from augment import crop_and_flip
from fit import Batch, Settings, fit
from methods import Method
from packed import cifar10
from torch import Tensor

import fa_dfm
from fa_dfm import DFM
from fa_dfm.nets import SmallResNet

__all__ = ["MEAN", "METHODS", "STD", "Photos", "read", "train"]

BATCH = 512
MEAN, STD = 0.47, 0.25

METHODS = {
    "loop": Method("small-resnet", {"blocks": 3}, looks=4, hidden=8, lr=4e-3),
    "feedforward": Method("small-resnet", {"blocks": 3}, lr=4e-3),
    "untied": Method("small-resnet", {"blocks": 12}, lr=4e-3),
}
"""The methods of the table; `untied` does as many multiply-adds as `loop`."""

Photos = tuple[Tensor, Tensor]
"""Images (n, 3, 32, 32), centred and scaled, and labels (n,), on the device."""


def read(folder: Path, split: str, device: str, limit: int | None = None) -> Photos:
    """One split, decoded once and kept on the device."""
    images, labels = cifar10(folder, split)
    return (images[:limit].to(device).float() / 255 - MEAN) / STD, labels[:limit].to(device)


def _make(method: Method, seed: int) -> DFM:
    """The converted network with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fa_dfm.convert(
            SmallResNet(**method.options),
            hidden=method.hidden,
            steps=method.looks,
            image_size=(32, 32),
        )


def train(
    method: Method,
    photos: Photos,
    seed: int,
    epochs: float,
    *,
    seconds: float | None = None,
    state_file: Path | None = None,
    report: Callable[[float, float], None] | None = None,
) -> DFM:
    """Train one network for so many passes. See `fit.fit` for the last three arguments."""
    net = _make(method, seed)
    images, labels = photos

    def draw(_net: DFM, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(images), (BATCH,), generator=generator, device=images.device)
        return Batch(crop_and_flip(images[rows], generator), labels[rows])

    settings = Settings(
        max(int(epochs * len(images) / BATCH), 1),
        lr=method.lr,
        weight_decay=5e-2,
        looks=method.looks,
        seconds=seconds,
        seed=seed,
    )
    fit(net, draw, settings, device=images.device.type, state_file=state_file, report=report)
    return net
