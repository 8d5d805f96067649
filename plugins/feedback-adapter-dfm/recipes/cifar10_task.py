"""Naming CIFAR-10's images: the data, the networks and the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from augment import crop_and_flip
from controls import start_from
from fit import Batch, Settings, fit
from methods import Method
from packed import cifar10
from torch import Tensor

import fa_dfm
from fa_dfm import DFM
from fa_dfm.nets import SmallResNet

__all__ = ["MEAN", "METHODS", "STD", "Photos", "read", "train"]

BATCH = 512
FINE_LR = 5e-4
"""Largest learning rate of networks that start from a trained one."""

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


def _make(method: Method, seed: int, control: Path | None) -> DFM:
    """The converted network with fresh weights, or with those of a trained `feedforward`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = fa_dfm.convert(
            SmallResNet(**method.options),
            hidden=method.hidden,
            steps=method.looks,
            image_size=(32, 32),
        )
    if control is not None:
        few, many = METHODS["feedforward"].options["blocks"], method.options["blocks"]
        moved = {
            f"model.stages.inner.{few * stage + i}": f"model.stages.inner.{many * stage + i}"
            for stage in range(3)
            for i in range(few)
        }
        start_from(net, control, moved, "main.4")
    return net


def train(
    method: Method,
    photos: Photos,
    seed: int,
    epochs: float,
    *,
    control: Path | None = None,
    batch: int = BATCH,
    seconds: float | None = None,
    state_file: Path | None = None,
    report: Callable[[float, float], None] | None = None,
) -> DFM:
    """Train one network for so many passes.

    Args:
        method: What it is.
        photos: Of the training split.
        seed: Of everything random.
        epochs: Passes over the images.
        control: A safetensors file with a trained `feedforward`, from which the network starts.
        batch: Images of a training step.
        seconds: See `fit.Settings`.
        state_file: See `fit.fit`.
        report: See `fit.fit`.
    """
    net = _make(method, seed, control)
    images, labels = photos

    def draw(_net: DFM, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(images), (batch,), generator=generator, device=images.device)
        return Batch(crop_and_flip(images[rows], generator), labels[rows])

    settings = Settings(
        max(int(epochs * len(images) / batch), 1),
        lr=method.lr if control is None else FINE_LR,
        feedback_lr=1 if control is None else 10,
        weight_decay=5e-2,
        looks=method.looks,
        seconds=seconds,
        seed=seed,
    )
    fit(net, draw, settings, device=images.device.type, state_file=state_file, report=report)
    return net
