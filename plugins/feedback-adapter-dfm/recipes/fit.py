"""One training loop for every network of this plugin, on CPU or GPU, which can be cut off."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from losses import step_loss
from safetensors.torch import load_file, save_file
from torch import Tensor

from fa_dfm import DFM, Known, State

try:
    from lightning_fabric import Fabric
except ImportError:  # the whole of Lightning carries Fabric under another name
    from lightning.fabric import Fabric

__all__ = ["Batch", "Settings", "fit", "one_cycle", "trajectory_loss"]


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one training step sees: images, the truth, and what is known beforehand."""

    images: Tensor
    target: Tensor
    known: Known | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Args:
        steps: Training steps.
        lr: Largest learning rate of Adam, reached after a tenth of the steps (OneCycle).
        feedback_lr: How many times as fast the feedback weights, which start at zero, learn.
        weight_decay: Decoupled, of Adam.
        clip: Largest norm of the gradient.
        looks: T; in each training step it is drawn from 1 to T + 1. 1 for a network that is
            to look once, which then always does.
        truncate: Gradients go through one look only. With `False`, through all.
        seconds: The schedule ends after so many seconds at the latest; `None` for no limit.
        precision: Of Fabric: "32-true" or "bf16-mixed".
        seed: Of everything random.
    """

    steps: int = 1000
    lr: float = 5e-3
    feedback_lr: float = 1.0
    weight_decay: float = 0.0
    clip: float = 1.0
    looks: int = 6
    truncate: bool = True
    seconds: float | None = None
    precision: str = "32-true"
    seed: int = 0


def fit(
    net: DFM,
    draw: Callable[[DFM, torch.Generator], Batch],
    settings: Settings,
    *,
    device: str = "cpu",
    state_file: Path | None = None,
    every: int = 100,
    report: Callable[[float, float], None] | None = None,
) -> dict[str, Any]:
    """Train a network in place.

    Args:
        net: Is moved to the device, and left in evaluation mode.
        draw: Makes the batches, on the device of the generator that it gets.
        settings: How.
        device: "cpu" or "cuda".
        state_file: Where the state of a run is kept; if it is there, the run goes on from it.
        every: How many steps lie between two states.
        report: Is told how much of the training is done, from 0 to 1, and the loss, now and then.

    Returns:
        How it went: steps, seconds, last loss.
    """
    fabric = Fabric(accelerator=device, devices=1, precision=settings.precision)
    net.to(fabric.device).train()
    parameters = [p for p in net.parameters() if p.requires_grad]
    listening = {id(p) for p in net.feedback.parameters()}
    parts: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) not in listening], "share": 1.0},
        {"params": [p for p in parameters if id(p) in listening], "share": settings.feedback_lr},
    ]
    optimizer = torch.optim.AdamW(
        parts, lr=settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
    )
    generator = torch.Generator(fabric.device).manual_seed(settings.seed)
    choose = torch.Generator().manual_seed(settings.seed)
    begun, done = time.monotonic(), 0
    if state_file is not None and state_file.is_file():
        done = _restore(state_file, net, optimizer, parameters, generator, choose)
    step, progress, loss = done, 0.0, torch.zeros(())
    while progress < 1:
        elapsed = (time.monotonic() - begun) / settings.seconds if settings.seconds else 0.0
        progress = max(step / settings.steps, elapsed)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * group["share"] * one_cycle(progress)
        most = settings.looks + 1 if settings.looks > 1 else 1
        looks = int(torch.randint(1, most + 1, (), generator=choose))
        batch = draw(net, generator)
        with fabric.autocast():
            loss = trajectory_loss(net, batch, looks, truncate=settings.truncate)
        fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        progress = max(step / settings.steps, elapsed)
        if report is not None and step % 20 == 0:
            report(min(progress, 1.0), float(loss.detach()))
        if state_file is not None and step % every == 0:
            _save(state_file, net, optimizer, parameters, generator, choose, step)
    net.eval()
    return {"steps": step, "seconds": time.monotonic() - begun, "loss": float(loss.detach())}


def one_cycle(progress: float, warm: float = 0.1) -> float:
    """The learning rate at a share of the training, as a share of its largest value.

    Up along a cosine from 1/25 for a tenth of the time, then down to 1/250,000.
    """
    if progress < warm:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * progress / warm)) / 2
    rest = min((progress - warm) / (1 - warm), 1.0)
    return 4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * rest)) / 2


def trajectory_loss(net: DFM, batch: Batch, looks: int, *, truncate: bool = True) -> Tensor:
    """The mean loss over all looks at a batch.

    Args:
        net: The network.
        batch: On the network's device.
        looks: How many, at least 1.
        truncate: Gradients go through one look only.
    """
    state, total = State(), torch.zeros((), device=batch.images.device)
    for _ in range(looks):
        state = net.step(batch.images, state.detach() if truncate else state, batch.known)
        assert state.logits is not None
        total = total + step_loss(state.logits, batch.target, net.kind) / looks
    return total


def _save(
    file: Path,
    net: DFM,
    optimizer: torch.optim.Optimizer,
    parameters: list[Tensor],
    generator: torch.Generator,
    choose: torch.Generator,
    step: int,
) -> None:
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for i, parameter in enumerate(parameters):
        for key, value in optimizer.state[parameter].items():
            tensors[f"adam.{i}.{key}"] = value
    tensors["random.device"], tensors["random.cpu"] = generator.get_state(), choose.get_state()
    tensors["step"] = torch.tensor(step)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    save_file({name: value.contiguous() for name, value in tensors.items()}, fresh)
    fresh.replace(file)


def _restore(
    file: Path,
    net: DFM,
    optimizer: torch.optim.Optimizer,
    parameters: list[Tensor],
    generator: torch.Generator,
    choose: torch.Generator,
) -> int:
    tensors = load_file(file)
    net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            parameter = parameters[int(index)]
            at = "cpu" if name == "step" else parameter.device
            optimizer.state[parameter][name] = value.to(at)
    generator.set_state(tensors["random.device"])
    choose.set_state(tensors["random.cpu"])
    return int(tensors["step"])
