"""Training and scoring networks on CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from augment import crop_and_flip
from fit import Batch, Settings, fit
from methods import Method, macs, parameters
from packed import cifar10
from rows import Measured
from torch import Tensor

import fa_dfm
from fa_dfm import DFM
from fa_dfm.nets import SmallResNet

__all__ = ["METHODS", "Photos", "make", "read", "score", "train"]

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


def make(method: Method, seed: int) -> DFM:
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
    method: Method, photos: Photos, seed: int, epochs: float, seconds: float | None
) -> tuple[DFM, dict[str, Any]]:
    """Train one network; returns it and how it went."""
    net = make(method, seed)
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
    return net, fit(net, draw, settings, device=images.device.type)


@torch.no_grad()
def score(name: str, nets: Sequence[DFM], photos: Photos, seed: int) -> list[Measured]:
    """Accuracy in percent, on clean images and under noise of standard deviation .1.

    Args:
        name: Of the method.
        nets: One network, or the members of an ensemble, whose probabilities are averaged.
        photos: The test images.
        seed: Of the training.
    """
    looks = nets[0].steps
    ways: dict[str, dict[str, Any]] = {name: {}}
    if looks > 1:
        ways |= {f"{name}, cut": {"cut": True}, f"{name}, shuffled": {"shuffle": True}}
        ways |= {f"{name}, {t} looks": {"steps": t} for t in (1, 2 * looks)}
    device = photos[0].device
    sample = torch.zeros(1, 3, 32, 32, device=device)
    cost, size = sum(macs(n, sample) for n in nets), sum(map(parameters, nets))
    measured = []
    for condition, sigma in (("clean", 0.0), ("noise .1", 0.1 / STD)):
        for way, how in ways.items():
            generator, right = torch.Generator(device).manual_seed(5), 0
            for images, labels in zip(photos[0].split(500), photos[1].split(500), strict=True):
                noise = torch.randn(images.shape, generator=generator, device=device)
                each = [n.unroll(images + sigma * noise, **how).logits[-1] for n in nets]
                p = torch.stack(each).softmax(2).mean(0)
                right += int((p.argmax(1) == labels).sum())
            used = cost * how.get("steps", looks) // looks
            value = 100 * right / len(photos[1])
            measured.append(Measured(way, condition, "accuracy", value, seed, used, size))
    return measured
