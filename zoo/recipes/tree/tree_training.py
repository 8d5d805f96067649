"""Train a network with several softmax heads from scratch, on small images."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixels import augment, normalise


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the network is trained.

    Args:
        epochs: Passes over the training images.
        batch: Images in a step.
        lr: Peak learning rate of SGD with Nesterov momentum 0.9, cosine to 0.
        warmup: Passes until the peak.
        weight_decay: On matrices and filters only.
        smoothing: Label smoothing.
        mix: Share of the steps with CutMix or mixup, half each.
        crop: Least share of an image's area in a random crop.
        colour: Largest relative change of brightness, contrast and saturation.
        coarse: Weight of the coarse head's loss beside the fine head's 1.
        average: Decay of the weights' exponential average, a step.
        drop_path: Stochastic depth of the last block.
        seed: Of everything random.
    """

    epochs: int = 120
    batch: int = 256
    lr: float = 0.15
    warmup: float = 4.0
    weight_decay: float = 5e-4
    smoothing: float = 0.05
    mix: float = 0.6
    crop: float = 0.35
    colour: float = 0.3
    coarse: float = 0.5
    average: float = 0.998
    drop_path: float = 0.05
    seed: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """Images with a fine and a coarse class.

    Args:
        images: (N, 3, size, size) uint8.
        fine: (N) int64.
        coarse: (N) int64.
    """

    images: Tensor
    fine: Tensor
    coarse: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> Tree:
        """The same on another device."""
        return Tree(*(t.to(device) for t in (self.images, self.fine, self.coarse)))


def accuracy(model: nn.Module, data: Tree, batch: int = 256) -> dict[str, float]:
    """Share of images (0 to 100) whose fine, and whose coarse, class ranks first."""
    model.eval()
    right = {"fine": 0, "coarse": 0}
    with torch.inference_mode():
        for rows in torch.arange(len(data), device=data.images.device).split(batch):
            logits = model(normalise(data.images[rows]))
            for name, truth in (("fine", data.fine), ("coarse", data.coarse)):
                right[name] += int((logits[name].argmax(1) == truth[rows]).sum())
    return {name: 100 * count / len(data) for name, count in right.items()}


def fit(
    model: nn.Module,
    train: Tree,
    settings: Settings,
    *,
    dev: Tree | None = None,
    every: int = 10,
    report: Callable[[dict[str, Any], nn.Module], None] = lambda _, __: None,
) -> nn.Module:
    """Train a model in place.

    Args:
        model: Returns `{"fine": logits, "coarse": logits}`; on the device of the data.
        train: What to train on.
        settings: How to train.
        dev: What to measure on along the way.
        every: After so many passes each.
        report: Called then, with what was measured and the averaged model.

    Returns:
        The averaged model, in evaluation mode.
    """
    device = train.images.device
    cuda = device.type == "cuda"
    torch.manual_seed(settings.seed)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = copy.deepcopy(model)
    pairs = [
        [t for t in m.state_dict().values() if t.is_floating_point()] for m in (average, model)
    ]
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim > 1].append(parameter)
    optimizer = torch.optim.SGD(
        [
            {"params": groups[True], "weight_decay": settings.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=settings.lr, momentum=0.9, nesterov=True,
    )  # fmt: skip
    per_epoch = max(1, len(train) // settings.batch)
    total, step, begun = settings.epochs * per_epoch, 0, time.perf_counter()
    for epoch in range(1, settings.epochs + 1):
        model.train()
        for images, fine, coarse in _batches(train, settings, epoch):
            warm = min(1.0, (step + 1) / (settings.warmup * per_epoch))
            cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / total)).item())
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * warm * cosine
            with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
                logits = model(images)
            loss = _loss(logits["fine"], fine, settings.smoothing)
            loss = loss + settings.coarse * _loss(logits["coarse"], coarse, settings.smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            decay = min(settings.average, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(*pairs, weight=1 - decay)  # pyright: ignore
        if dev is not None and (epoch % every == 0 or epoch == settings.epochs):
            entry = {
                "epoch": epoch,
                "loss": round(float(loss.detach()), 4),
                **{
                    f"dev_{name}": round(value, 2) for name, value in accuracy(average, dev).items()
                },
                "seconds": round(time.perf_counter() - begun, 1),
            }
            report(entry, average)
    return average.eval()


def _batches(
    train: Tree, settings: Settings, epoch: int
) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor, float], tuple[Tensor, Tensor, float]]]:
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    order = torch.randperm(len(train), generator=generator).to(train.images.device)
    for rows in order.split(settings.batch):
        if len(rows) < settings.batch and len(order) >= settings.batch:
            continue
        images = augment(
            train.images[rows], crop=settings.crop, colour=settings.colour, generator=generator
        )
        share, draw = 1.0, torch.rand(4, generator=generator).tolist()
        if draw[0] < settings.mix:
            images, share = _cutmix(images, draw) if draw[1] < 0.5 else _mixup(images, draw[2])
        pairs = [(t, t.flip(0), share) for t in (train.fine[rows], train.coarse[rows])]
        yield images.contiguous(memory_format=torch.channels_last), pairs[0], pairs[1]


def _mixup(images: Tensor, draw: float) -> tuple[Tensor, float]:
    share = 0.5 + 0.5 * draw
    return share * images + (1 - share) * images.flip(0), share


def _cutmix(images: Tensor, draw: list[float]) -> tuple[Tensor, float]:
    side = images.shape[-1]
    length = round(side * (draw[1] * 2) ** 0.5)  # a uniform share of the area
    top, left = (round(d * (side - length)) for d in draw[2:])
    mixed = images.clone()
    box = (..., slice(top, top + length), slice(left, left + length))
    mixed[box] = images.flip(0)[box]
    return mixed, 1 - (length / side) ** 2


def _loss(logits: Tensor, target: tuple[Tensor, Tensor, float], smoothing: float) -> Tensor:
    first, second, share = target
    logits = logits.float()
    loss = F.cross_entropy(logits, first, label_smoothing=smoothing)
    if share == 1.0:
        return loss
    other = F.cross_entropy(logits, second, label_smoothing=smoothing)
    return share * loss + (1 - share) * other
