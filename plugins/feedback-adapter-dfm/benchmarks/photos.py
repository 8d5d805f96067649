"""Scoring networks on CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from cifar10_task import STD, Photos
from methods import macs, parameters
from rows import Measured, ways

from fa_dfm import DFM

__all__ = ["score"]


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
    device = photos[0].device
    sample = torch.zeros(1, 3, 32, 32, device=device)
    cost, size = sum(macs(n, sample) for n in nets), sum(map(parameters, nets))
    measured = []
    for condition, sigma in (("clean", 0.0), ("noise .1", 0.1 / STD)):
        for way, how in ways(name, looks).items():
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
