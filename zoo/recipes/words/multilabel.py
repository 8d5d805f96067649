"""Train `tf_efficientnet_lite0` to predict several labels of an image at once.

The head is trained first, on frozen features; then everything, at a lower rate for the
features, with an exponential average of the weights, until the mean average precision
on dev images has not risen for a while. What every random draw depends on is the seed
and the epoch alone, so a run that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from pixels import Pixels, augment, normalise
from state import load_state, save_state
from words.feedback_loss import FeatureTap, feedback_loss

try:
    from lightning_fabric import Fabric
except ImportError:  # the whole of Lightning carries Fabric under another name
    from lightning.fabric import Fabric  # pyright: ignore[reportMissingImports]

LOSSES = ("bce", "weighted")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a checkpoint is trained; the defaults of a recipe were chosen on dev images.

    Args:
        size: Side of the input in pixels.
        loss: "bce", or "weighted": Feedback-prop's eq. 6, in which label j counts
            lambda_j = (images without it) / (images with it), here scaled to mean 1.
        head_epochs: Passes over the training images for the head alone.
        head_lr: Its learning rate (AdamW).
        epochs: Passes for the whole network, at most.
        lr: Learning rate of the features, cosine to 0 after a pass of warm-up.
        head_factor: How much faster the head learns than the features.
        weight_decay: AdamW's, on matrices and filters only.
        batch: Images in a step.
        drop_rate: Dropout before the head.
        drop_path: Stochastic depth of the last block.
        crop: Least share of an image's area in a random crop.
        colour: Largest relative change of brightness, contrast and saturation.
        mixup: Alpha of mixup's beta distribution; 0 for none.
        average: Decay of the weights' exponential average, a step; 0 for none.
        feedback: Weight of the loss of unknown labels after feedback from known ones
            (`feedback_loss`); 0 for none.
        feedback_steps: Its steps of gradient descent.
        feedback_step_size: Their size.
        patience: Stop when dev has not improved for this many passes.
        seed: Of everything random.
    """

    size: int = 144
    loss: str = "bce"
    head_epochs: int = 4
    head_lr: float = 4e-3
    epochs: int = 16
    lr: float = 5e-4
    head_factor: float = 4.0
    weight_decay: float = 0.02
    batch: int = 64
    drop_rate: float = 0.3
    drop_path: float = 0.1
    crop: float = 0.4
    colour: float = 0.3
    mixup: float = 0.0
    average: float = 0.99
    feedback: float = 0.0
    feedback_steps: int = 4
    feedback_step_size: float = 0.5
    patience: int = 5
    seed: int = 1

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}.")


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training gives: the best weights on dev, and how it went.

    Args:
        weights: State dict on the CPU, float32.
        dev_map: Mean average precision on dev, 0 to 100.
        epoch: After which pass, head passes counted in.
        history: For each pass, {"epoch", "phase", "loss", "dev_map", "seconds"}.
        seconds: Time in all.
    """

    weights: dict[str, Tensor]
    dev_map: float
    epoch: int
    history: list[dict[str, Any]]
    seconds: float


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Mean over labels of average precision, 0 to 100.

    Args:
        targets: (N, n), 0 or 1. Labels that no image has are left out.
        scores: (N, n), higher for likelier.
    """
    there = [j for j in range(targets.shape[1]) if targets[:, j].any()]
    values = [average_precision_score(targets[:, j] > 0, scores[:, j]) for j in there]
    return 100 * float(np.mean(values))


def predict(model: nn.Module, pixels: Pixels, batch: int = 256) -> np.ndarray:
    """Logits (N, n) of a model in evaluation mode, float32."""
    model.eval()
    with torch.inference_mode():
        parts = [model(normalise(part)).float().cpu() for part in pixels.images.split(batch)]
    return torch.cat(parts).numpy()


def label_weights(targets: Tensor, loss: str) -> Tensor:
    """(n) weight of each label in the loss, of mean 1."""
    if loss == "bce":
        return torch.ones(targets.shape[1], device=targets.device)
    having = targets.sum(0).clamp(min=1)
    weights = (len(targets) - having) / having
    return weights / weights.mean()


def fit(
    model: nn.Module,
    train: Pixels,
    dev: Pixels,
    settings: Settings,
    *,
    state_file: Path | None = None,
    accelerator: str = "auto",
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Fit:
    """Train a model, or go on training it.

    Args:
        model: From `lite0.create`.
        train: What to train on.
        dev: What decides when to stop.
        settings: How to train.
        state_file: Where the state is kept after each pass, if anywhere; where the file
            is there already, training goes on from it.
        accelerator: Fabric's: "auto", "cpu", "cuda".
        report: Called after each pass with its entry of the history.
    """
    fabric = _fabric(accelerator)
    fabric.seed_everything(settings.seed, verbose=False)
    train, dev = train.to(fabric.device), dev.to(fabric.device)
    weights = label_weights(train.targets, settings.loss)
    network = fabric.setup_module(model.to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    average = copy.deepcopy(model)
    classifier: Any = model.get_submodule("classifier")
    tap = FeatureTap(classifier)
    pairs = [
        [t for t in side.state_dict().values() if t.is_floating_point()]
        for side in (average, model)
    ]
    progress, saved_optimizer = load_state(state_file, model, average, fabric.device)
    phases = [("head", settings.head_epochs), ("whole", settings.epochs)]
    begun = time.perf_counter() - progress.seconds
    epoch = 0
    for phase, epochs in phases:
        optimizer: Any = fabric.setup_optimizers(_optimizer(model, settings, phase))
        steps = epochs * _steps(len(train), settings.batch)
        for within in range(epochs):
            epoch += 1
            if epoch <= progress.epoch or progress.finished:
                continue
            if saved_optimizer is not None and within:
                optimizer.load_state_dict(saved_optimizer(optimizer))
            saved_optimizer = None
            if phase == "whole" and not within:
                average.load_state_dict(model.state_dict())
            started = time.perf_counter()
            first = within * _steps(len(train), settings.batch)
            loss = 0.0
            _set_train(model, phase)
            for step, (images, targets) in enumerate(_batches(train, settings, epoch), first):
                _schedule(optimizer, settings, phase, step, steps)
                losses = F.binary_cross_entropy_with_logits(
                    network(images).float(), targets, weight=weights
                )
                if settings.feedback:
                    after = feedback_loss(
                        tap.features, classifier, targets,
                        steps=settings.feedback_steps, step_size=settings.feedback_step_size,
                    )  # fmt: skip
                    losses = losses + settings.feedback * after
                fabric.backward(losses)
                optimizer.step()
                optimizer.zero_grad()
                loss = losses.detach()
                decay = min(settings.average, (1 + step) / (10 + step))
                with torch.no_grad():  # the head alone is not averaged
                    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                        *pairs, weight=1 - decay if phase == "whole" else 1.0
                    )
            with fabric.autocast():
                score = mean_average_precision(dev.targets.cpu().numpy(), predict(average, dev))
            entry = {
                "epoch": epoch,
                "phase": phase,
                "loss": round(float(loss), 5),
                "dev_map": round(score, 3),
                "seconds": round(time.perf_counter() - started, 2),
            }
            progress.add(entry, score, average, time.perf_counter() - begun)
            progress.finished = (
                phase == "whole" and epoch - progress.best_epoch >= settings.patience
            )
            if state_file is not None:
                save_state(state_file, progress, model, average, optimizer)
            report(entry)
    return Fit(
        progress.best, progress.best_map, progress.best_epoch, progress.history, progress.seconds
    )


def _fabric(accelerator: str) -> Fabric:
    cuda = accelerator in ("cuda", "gpu") or (accelerator == "auto" and torch.cuda.is_available())
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if cuda else "32-true",
    )
    fabric.launch()
    return fabric


def _steps(images: int, batch: int) -> int:
    return max(1, images // batch)


def _batches(train: Pixels, settings: Settings, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    torch.manual_seed(settings.seed * 1000 + epoch)  # dropout and drop path
    order = torch.randperm(len(train), generator=generator)
    for step in range(_steps(len(train), settings.batch)):
        rows = order[step * settings.batch : (step + 1) * settings.batch].to(train.images.device)
        images, targets = train.images[rows], train.targets[rows]
        pixels = augment(images, crop=settings.crop, colour=settings.colour, generator=generator)
        if settings.mixup:
            rng = np.random.default_rng((settings.seed, epoch, step))
            share = float(rng.beta(settings.mixup, settings.mixup))
            pixels = share * pixels + (1 - share) * pixels.flip(0)
            targets = share * targets + (1 - share) * targets.flip(0)
        yield pixels.contiguous(memory_format=torch.channels_last), targets


def _set_train(model: nn.Module, phase: str) -> None:
    # Frozen features keep their batch statistics too.
    model.train(phase == "whole")
    model.get_submodule("classifier").train()


def _optimizer(model: nn.Module, settings: Settings, phase: str) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        head = name.startswith("classifier.")
        parameter.requires_grad_(head or phase == "whole")
        if parameter.requires_grad:
            groups.setdefault((head, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "factor": settings.head_factor if head else 1.0,
                "weight_decay": settings.weight_decay if decay else 0.0,
            }
            for (head, decay), parameters in groups.items()
        ]
    )


def _schedule(optimizer: Any, settings: Settings, phase: str, step: int, steps: int) -> None:
    for group in optimizer.param_groups:
        if phase == "head":
            group["lr"] = settings.head_lr * _cosine(step / steps)
        else:
            warm = min(1.0, (step + 1) * settings.epochs / steps)
            group["lr"] = settings.lr * group["factor"] * warm * _cosine(step / steps)


def _cosine(done: float) -> float:
    return 0.5 * (1 + float(np.cos(np.pi * done)))
