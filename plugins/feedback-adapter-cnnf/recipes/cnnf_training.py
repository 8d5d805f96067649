"""Train CNN-F or its feedforward control, on clean or on attacked images, on CPU or GPU.

As published ('Neural Networks with Recurrent Generative Feedback', NeurIPS 2020), but for
these flaws of the published code: the final weights are kept, not the best epoch on test
images; the weights of linear layers decay once, not twice; on the wide ResNet the feedback
below the global average pool keeps more than its sign (`head_norm="sample"`).

A run that was cut off goes on from its state file as if it had not been. A whole step touches
nothing but tensors on the device, so that on a GPU it can be captured as one CUDA graph.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cnnf_settings import Settings, build, loss_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import fa_cnnf
from fa_cnnf.data import Images, to_input

try:
    from lightning_fabric import Fabric
except ImportError:  # the whole of Lightning carries Fabric under another name
    from lightning.fabric import Fabric

MODES = ("eager", "graph", "compile", "compile+graph")


class Stepper:
    """One training step on tensors that stay in place.

    Args:
        model: The net, on its device.
        data: Training images, on the same device. Where they are fewer than a batch, all of them
            are one.
        settings: How to train.
        mode: How steps run: "eager", "compile" (torch.compile), "graph" (a CUDA graph of the
            whole step), or "compile+graph".
    """

    def __init__(self, model: fa_cnnf.CNNF, data: Images, settings: Settings, mode: str) -> None:
        self.model, self.settings, self.mode = model, settings, mode
        device, s = data.labels.device, settings
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.velocity = [torch.zeros_like(p) for p in self.parameters]
        self.frozen = copy.deepcopy(model).requires_grad_(False)  # the same weights, no gradients
        for p, q in zip(model.parameters(), self.frozen.parameters(), strict=True):
            q.data = p.data
        self.labels, self.height, self.width = data.labels, *data.images.shape[2:]
        self.images = F.pad(data.images, (4, 4, 4, 4)) if s.augment else data.images
        batch = min(s.batch, len(data.labels))
        self.rows = torch.zeros(batch, dtype=torch.long, device=device)
        self.shift = torch.zeros(3, batch, dtype=torch.long, device=device)  # down, right, flip
        self.start = torch.zeros(batch, *data.images.shape[1:], device=device)
        self.lr = torch.zeros((), device=device)
        self.total = torch.zeros((), device=device)
        self._loss: Callable[..., Tensor] = loss_of
        self._first: Callable[..., Tensor] = _first_pass_loss
        self._graph: torch.cuda.CUDAGraph | None = None

    def prepare(self) -> None:
        """Compile and capture, whatever the mode asks for; weights stay as they are."""
        self.lr.zero_()
        torch.arange(len(self.rows), out=self.rows)
        if "compile" in self.mode:
            x, y = self._batch()
            args = self.model, x, x if self.settings.adversarial else None, y, self.settings
            eager = float(loss_of(*args).detach())
            self._loss = torch.compile(loss_of, fullgraph=True, dynamic=False)
            self._first = torch.compile(_first_pass_loss, fullgraph=True, dynamic=False)
            compiled = float(self._loss(*args).detach())
            if not abs(eager - compiled) <= 0.02 * abs(eager) + 1e-3:
                raise RuntimeError(f"compiled loss {compiled} against {eager}")
        if "graph" in self.mode:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(4):
                    self._step()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
            self._graph = graph
        for _ in range(2):
            self()
        self.reset()

    def reset(self) -> None:
        """Forget momentum and the running loss."""
        torch._foreach_zero_(self.velocity)
        self.total.zero_()

    def __call__(self) -> None:
        """Run one step on the batch that `rows`, `shift`, `start` and `lr` describe."""
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()

    def seconds(self, count: int = 20) -> float:
        """Time of one step, without moving the weights."""
        self.lr.zero_()
        self()
        self._wait()
        begun = time.perf_counter()
        for _ in range(count):
            self()
        self._wait()
        self.reset()
        return (time.perf_counter() - begun) / count

    def _wait(self) -> None:
        if self.lr.is_cuda:
            torch.cuda.synchronize()

    def _batch(self) -> tuple[Tensor, Tensor]:
        if not self.settings.augment:
            return to_input(self.images[self.rows]), self.labels[self.rows]
        down, right, flip = self.shift
        y = torch.arange(self.height, device=down.device)
        x = torch.arange(self.width, device=down.device)
        column = torch.where(flip[:, None] > 0, self.width - 1 - x, x) + right[:, None]
        channel = torch.arange(self.images.shape[1], device=down.device)
        pixels = self.images[
            self.rows[:, None, None, None],
            channel[None, :, None, None],
            (y + down[:, None])[:, None, :, None],
            column[:, None, None, :],
        ]
        return to_input(pixels), self.labels[self.rows]

    def _batch_loss(self) -> Tensor:
        x, y = self._batch()
        adv = self._attack(x, y) if self.settings.adversarial else None
        return self._loss(self.model, x, adv, y, self.settings)

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        """PGD on the first pass; eps and steps are doubled, inputs being in [-1, 1]."""
        s = self.settings
        low, high = (x - 2 * s.eps).clamp(min=-1), (x + 2 * s.eps).clamp(max=1)
        adv = torch.minimum(torch.maximum(x + 2 * s.eps * self.start, low), high)
        for _ in range(s.attack_steps):
            adv = adv.detach().requires_grad_()
            (g,) = torch.autograd.grad(self._first(self.frozen, adv, y), adv)
            moved = adv.detach() + 2 * s.attack_step * g.sign()
            adv = torch.minimum(torch.maximum(moved, low), high)
        return adv.detach()

    def _step(self) -> None:
        s = self.settings
        loss = self._batch_loss()
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            scale = (s.clip / (norm + 1e-6)).clamp(max=1.0)
            decayed = torch._foreach_mul(gradients, scale)
            torch._foreach_add_(decayed, self.parameters, alpha=s.weight_decay)
            torch._foreach_mul_(self.velocity, s.momentum)
            torch._foreach_add_(self.velocity, decayed)
            torch._foreach_sub_(self.parameters, torch._foreach_mul(self.velocity, self.lr))
            self.total += loss.detach()


def _first_pass_loss(model: fa_cnnf.CNNF, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x, 0), y, reduction="sum")


@dataclasses.dataclass
class Progress:
    """How far a run is."""

    epoch: int = 0
    epochs: int = 0
    step: int = 0
    done: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def fabric_for(accelerator: str) -> Any:
    """Fabric on one device: "auto", "cpu" or "cuda"."""
    cuda = accelerator in ("cuda", "gpu") or (accelerator == "auto" and torch.cuda.is_available())
    fabric = Fabric(accelerator="cuda" if cuda else "cpu", devices=1, precision="32-true")
    fabric.launch()
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return fabric


def fit(
    stepper: Stepper,
    *,
    seed: int,
    epochs: int,
    seconds: float = 0.0,
    state_file: Path | None = None,
    start: Path | None = None,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Progress:
    """Train from fresh or given weights, or go on training.

    Args:
        stepper: Prepared; its model's weights are replaced.
        seed: Of the weights, the order and the attacks' starts.
        epochs: Passes to plan the schedule for, at least 1.
        seconds: If above 0: passes that turn out not to fit are struck off.
        state_file: Where the state is kept after each pass; training goes on from it.
        start: A safetensors file with the weights to start from.
        report: Called after each pass with its entry of the history.
    """
    s, device = stepper.settings, stepper.lr.device
    torch.manual_seed(seed)
    fresh = build(s)
    if start is not None:
        fresh.load_state_dict(load_file(start))
    with torch.no_grad():
        for p, q in zip(stepper.model.parameters(), fresh.parameters(), strict=True):
            p.copy_(q)
    stepper.reset()
    progress = _load(state_file, stepper) or Progress(epochs=epochs)
    batch = len(stepper.rows)
    count = len(stepper.labels) // batch
    begun = time.perf_counter() - progress.seconds
    while progress.epoch < progress.epochs:
        generator = torch.Generator(device).manual_seed(seed * 100_003 + progress.epoch)
        order = torch.randperm(len(stepper.labels), generator=generator, device=device)
        left = count * (progress.epochs - progress.epoch)
        for index in range(count):
            stepper.rows.copy_(order[index * batch : (index + 1) * batch])
            if s.adversarial:
                stepper.start.uniform_(-1, 1, generator=generator)
            if s.augment:
                stepper.shift[:2].random_(0, 9, generator=generator)
                stepper.shift[2].random_(0, 2, generator=generator)
            # Where passes were struck off, the rest of the schedule runs faster.
            done = progress.done + (1 - progress.done) * index / left
            stepper.lr.fill_(s.lr * (1 - done) ** s.power)
            stepper()
        progress.done += (1 - progress.done) * count / left
        loss = float(stepper.total) / count
        stepper.total.zero_()
        if not loss < float("inf"):
            raise RuntimeError(f"the loss became {loss} in pass {progress.epoch + 1}")
        progress.epoch += 1
        progress.step += count
        progress.seconds = time.perf_counter() - begun
        entry = {"epoch": progress.epoch, "loss": round(loss, 5)}
        entry["seconds"] = round(progress.seconds, 2)
        progress.history.append(entry)
        if seconds:
            fit_in = int((seconds - progress.seconds) / (progress.seconds / progress.epoch))
            progress.epochs = min(progress.epochs, progress.epoch + max(0, fit_in))
        _save(state_file, stepper, progress)
        report(entry)
    return progress


def _save(path: Path | None, stepper: Stepper, progress: Progress) -> None:
    if path is None:
        return
    tensors = {f"model.{k}": v for k, v in stepper.model.state_dict().items()}
    tensors |= {f"velocity.{i}": v for i, v in enumerate(stepper.velocity)}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    metadata = {"progress": json.dumps(vars(progress))}
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, new, metadata)
    new.replace(path)


def _load(path: Path | None, stepper: Stepper) -> Progress | None:
    if path is None or not path.is_file():
        return None
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, value in stepper.model.state_dict().items():
            value.copy_(file.get_tensor(f"model.{name}"))
        for index, value in enumerate(stepper.velocity):
            value.copy_(file.get_tensor(f"velocity.{index}"))
        return Progress(**json.loads(file.metadata()["progress"]))
