"""What the tests of sites share: the sweep's checks, on any model."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.sites import Inputs, Tail, frozen
from feedback_adapter.testing import differences, snapshot

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LABELS = ["a", "b", "c", "d"]
EVIDENCE = fa.Labels({"a": 1, "b": 0})


def _benchmark(name: str) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="session")
def conformance() -> ModuleType:
    """benchmarks/conformance.py: what must hold of every model."""
    return _benchmark("conformance")


@pytest.fixture(scope="session")
def stress() -> ModuleType:
    """benchmarks/stress.py: interrupts and threads."""
    return _benchmark("stress")


@pytest.fixture
def holds(conformance: ModuleType) -> Callable[..., fa.Refinement]:
    """Check what must hold of any model at a pivot; gives the residual refinement."""

    def check(
        model: nn.Module, images: Any, pivot: str, *, select: str | None = None, **options: Any
    ) -> fa.Refinement:
        adapter = fa.wrap(model, outputs={"output": fa.Output(tuple(LABELS), select=select)})
        predicted = adapter.unrefined(images)["output"]
        with frozen(adapter.model), torch.no_grad():
            plain = adapter.read(Inputs.of(images).run(adapter.model))["output"]
        torch.testing.assert_close(plain, predicted, msg="PyTorch's fused paths only round")
        before = snapshot(model)
        with frozen(adapter.model):
            tail = Tail.record(adapter.model, Inputs.of(images), [pivot])
            leaf = tail.activations[0].detach().clone().requires_grad_()
            recorded = leaf.detach().clone()
            with torch.enable_grad():
                value = adapter.read(tail.run([lambda _: leaf]))["output"]
                (gradient,) = torch.autograd.grad(value.square().sum(), leaf)
            again = adapter.read(tail.run([lambda a: a]))["output"]
        assert torch.equal(value, plain), "the replayed output is the plain model's"
        assert torch.equal(again, plain), "and so it is the second time"
        assert torch.equal(leaf.detach(), recorded), "the activation is not overwritten"
        assert gradient.isfinite().all()
        assert gradient.any()
        results = [
            adapter.refine(images, EVIDENCE, strategy=strategy, pivots=pivot, **options)
            for strategy in ("layerwise", "residual")
        ]
        for result in results:
            assert (result.losses.amin(0) < result.losses[0]).all()
            assert torch.equal(result.outputs_before["output"], plain)
        after = snapshot(model)
        assert not differences(before, after)
        return results[-1]

    return check


class Net(nn.Module):
    """A small convolutional network in three stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)).mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16)
