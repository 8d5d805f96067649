"""Interrupt refinements at random instants, and refine in many threads: nothing may stay behind.

Run it with `make stress`. First Ctrl+C strikes at a random instant of `refine`, 2,000 times over
five models; after each the model, PyTorch's functions and a prediction must be what they were.
Then eight threads refine with two models that share layers, while one thread trains another
model and one traces a third with torch.fx. Exits with 1 if anything is left behind.
"""

from __future__ import annotations

import argparse
import collections
import platform
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import checkpoint
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as modes

import feedback_adapter as fa
from feedback_adapter.testing import differences, snapshot

TOLD = fa.Labels({"a": 1})


def convolutions() -> nn.Module:
    """Convolutions with batch normalisation and dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2),
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(16, 2),
    )  # fmt: skip


class Attention(nn.Module):
    """A transformer of PyTorch's own layers, whose fused path is switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 2)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Checkpointed(nn.Module):
    """Gradient checkpointing, which is switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = convolutions()[:6], nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        features: Any = checkpoint.checkpoint(self.body, x, use_reentrant=False)
        return self.head(features.mean((2, 3)))


class Remembers(nn.Module):
    """Writes a buffer, an attribute and a list in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = convolutions()[:6], nn.Linear(16, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.body(x).mean((2, 3))
        self.seen.append(float(self.last.detach().sum()))
        return self.head(self.last)


class OwnTrain(nn.Module):
    """Keeps its stem in evaluation mode while the rest trains."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.BatchNorm2d(3), convolutions()

    def train(self, mode: bool = True) -> OwnTrain:
        super().train(mode)
        self.stem.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))


MODELS = (convolutions, Attention, Checkpointed, Remembers, OwnTrain)


def functions() -> dict[str, Any]:
    """What of PyTorch may be exchanged or set for the time of a refinement."""
    return {
        "grad mode": torch.is_grad_enabled(),
        "dispatch modes": len(modes()),
        "nn.Module.__call__": nn.Module.__call__,
        "scaled_dot_product_attention": functional.scaled_dot_product_attention,
        "get_fastpath_enabled": torch.backends.mha.get_fastpath_enabled,
        "TransformerEncoder.forward": nn.TransformerEncoder.forward,
        **{f"checkpoint.{n}": v for n, v in vars(checkpoint).items() if callable(v)},
    }


def left(before: dict[str, Any], models: list[nn.Module]) -> list[str]:
    """What isn't as it was; a buffer that was written and put back has another version."""
    after = functions()
    found = [name for name, value in before["functions"].items() if after[name] is not value]
    for snap, model in zip(before["models"], models, strict=True):
        found += [d for d in differences(snap, snapshot(model)) if "._version" not in d]
    return found


def as_it_is(models: list[nn.Module]) -> dict[str, Any]:
    """To compare with later."""
    return {"functions": functions(), "models": [snapshot(model) for model in models]}


def interrupts(count: int, seed: int) -> collections.Counter[str]:
    """Interrupt refinements; what was left behind, by what it was."""
    draw, found = random.Random(seed), collections.Counter[str]()

    def strike(*_: Any) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, strike)
    images = torch.rand(2, 3, 32, 32)
    for kind in MODELS:
        torch.manual_seed(seed)
        model = kind().train()
        adapter = fa.wrap(model, labels=["a", "b"])
        pivots = [name for name, _ in model.named_children()][-2]

        def refine(adapter: fa.Adapter = adapter, pivots: str = pivots) -> Tensor:
            return adapter.refine(images, TOLD, pivots=pivots, strategy="residual", steps=4).after

        expected = refine()
        start = time.perf_counter()
        refine()
        lasts = time.perf_counter() - start
        before, struck = as_it_is([model]), 0
        for _ in range(count // len(MODELS)):
            try:
                signal.setitimer(signal.ITIMER_REAL, max(draw.uniform(0, lasts), 1e-6))
                refine()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            stays = left(before, [model])
            if not stays and not torch.equal(refine(), expected):
                stays = ["another result"]
            if stays:
                found[f"{kind.__name__}: {stays[0][:60]}"] += 1
                model = kind().train()  # go on with a sound one
                adapter = fa.wrap(model, labels=["a", "b"])
                before, expected = as_it_is([model]), refine(adapter)
                refine.__defaults__ = (adapter, pivots)
        print(f"  {kind.__name__}: {struck} of {count // len(MODELS)} struck, {lasts * 1e3:.0f} ms")
    signal.signal(signal.SIGALRM, usual)
    return found


def threads(seconds: float, seed: int) -> tuple[list[str], collections.Counter[str]]:
    """Eight threads refine, one trains, one traces; what is left, and what was done."""
    torch.manual_seed(seed)
    one = convolutions().train()
    two = nn.Sequential(*one[:6], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)).train()
    trained, traced = convolutions().train(), convolutions()
    images, stop, done = torch.rand(2, 3, 32, 32), threading.Event(), collections.Counter[str]()
    adapters = [fa.wrap(model, labels=["a", "b"]) for model in (one, two)]

    def refine(adapter: fa.Adapter) -> Tensor:
        return adapter.refine(images, TOLD, pivots="3", strategy="residual", steps=4).after

    expected = [refine(adapter) for adapter in adapters]
    before, wrong = as_it_is([one, two]), list[str]()

    def forever(what: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            while not stop.is_set():
                try:
                    work()
                    done[what] += 1
                except Exception as error:
                    done[f"{what}: {type(error).__name__} {str(error)[:50]}"] += 1

        return threading.Thread(target=run)

    def refines(index: int) -> Callable[[], None]:
        def work() -> None:
            if not torch.equal(refine(adapters[index % 2]), expected[index % 2]):
                wrong.append("another result in a thread that refines")

        return work

    optimiser = torch.optim.SGD(trained.parameters(), 1e-3)

    def train() -> None:
        optimiser.zero_grad()
        trained(images).square().sum().backward()
        optimiser.step()
        if not all(p.requires_grad and p.grad is not None for p in trained.parameters()):
            wrong.append("a frozen parameter in the thread that trains")

    def trace() -> None:
        graph = torch.fx.symbolic_trace(traced)
        if "conv" not in graph.code and "getattr" not in graph.code:
            wrong.append("another graph in the thread that traces")
        time.sleep(0.05)

    workers = [forever("refine", refines(index)) for index in range(8)]
    workers += [forever("train", train), forever("trace", trace)]
    for worker in workers:
        worker.start()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return wrong + left(before, [one, two]), done


def main() -> int:
    """Run both and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interrupts", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, seed {options.seed}")
    start = time.perf_counter()
    found = interrupts(options.interrupts, options.seed)
    print(f"interrupts: {sum(found.values())} of {options.interrupts} left something behind, "
          f"{time.perf_counter() - start:.0f} s {dict(found) or ''}")  # fmt: skip
    leaks, done = threads(options.seconds, options.seed)
    print(f"threads: {len(leaks)} leaks in {options.seconds:.0f} s; {dict(done)} {leaks[:5] or ''}")
    return 1 if found or leaks else 0


if __name__ == "__main__":
    sys.exit(main())
