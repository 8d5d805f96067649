"""The promises of strategies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import PluginError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.labels import Labels
from feedback_adapter.guard import ModelChangedError
from feedback_adapter.hookspecs import StrategySpec, hookimpl
from feedback_adapter.outputs import Outputs
from feedback_adapter.plugins import scoped
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Strategy
from feedback_adapter.testing.promises import ConformanceError, close, require
from feedback_adapter.testing.state import untouched
from feedback_adapter.testing.tiny import tiny_adapter, tiny_images

__all__ = ["check_strategy"]


def check_strategy(
    strategy: type[Strategy[Any]] | StrategySpec,
    options: Any = None,
    *,
    adapter: Adapter | None = None,
    images: Tensor | None = None,
    evidence: Callable[[int], Evidence] | None = None,
    pivots: Any = "auto",
    atol: float = 1e-5,
) -> Refinement:
    """Check that a strategy keeps the promises of `feedback_adapter.Strategy`.

    Args:
        strategy: The class, or its spec.
        options: Its options; with a spec, by default those of no arguments.
        adapter: The model to refine; by default `tiny_adapter()`.
        images: A batch for it, of four or more; by default `tiny_images(8)`.
        evidence: Makes evidence for so many images; by default labels of two images of
            three. Nothing may be known of image 2.
        pivots: Sites, or `"auto"`.
        atol: How far, in logits, an image alone may be from the same image in the batch.

    Returns:
        The refinement of the batch, for checks of your own.

    Raises:
        ConformanceError: A promise that it breaks: shapes; what is before is what the model
            says; the loss falls; an image's result is its own; an image of which nothing is
            known stays as it is; the model is bit for bit what it was, after an error too.
    """
    adapter = adapter or tiny_adapter()
    images = tiny_images(8) if images is None else images
    make = evidence or _some_labels
    batch = len(images)
    kind = strategy.options if isinstance(strategy, StrategySpec) else type(options)
    strategy = strategy.strategy if isinstance(strategy, StrategySpec) else strategy
    spec = StrategySpec("strategy-under-test", strategy, kind, "under test")
    fine = dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # pyright: ignore
    require(bool(fine), f"options are a {kind.__name__}: they must be a frozen dataclass")
    options = kind() if options is None else options

    def refine(chosen: Tensor, known: Evidence) -> Refinement:
        with scoped(_Only(spec)):
            try:
                return adapter.refine(
                    chosen, known, strategy=spec.name, pivots=pivots, options=options
                )
            except PluginError as error:
                raise ConformanceError(str(error)) from error

    known = make(batch)
    with untouched(adapter.model):
        result = refine(images, known)
    plain = adapter.predict(images)
    for name, value in result.outputs_before.items():
        expected = plain if isinstance(plain, Tensor) else plain[name]
        close(value, expected, f"output {name!r} before isn't what the model says", atol)
    bound = known.bind(adapter.outputs, batch)
    start = float(result.losses[0].sum())
    refined, after = (
        float(bound.loss(outputs).sum())
        for outputs in (result.outputs_refined, result.outputs_after)
    )
    require(after < start, f"the evidence loss rose: {start} to {after}")
    fine = refined < start if result.pivots else refined <= start
    require(fine, f"the evidence loss rose in the network's own view: {start} to {refined}")
    for name, value in result.outputs_after.items():
        for index in range(batch):
            rows = torch.tensor([index])
            alone = refine(images[rows], known.take(rows)).outputs_after[name]
            close(alone, value[rows], f"image {index} depends on its batch mates", atol)
        stays = f"image 2, of which nothing is known, changes in output {name!r}"
        close(value[2], result.outputs_before[name][2], stays, atol)
    with untouched(adapter.model):
        try:
            refine(images, _Broken(known))
        except (ConformanceError, _BrokenError) as error:
            if isinstance(error.__cause__, ModelChangedError):
                raise
    return result


class _Only:
    """A plugin with one strategy."""

    def __init__(self, spec: StrategySpec) -> None:
        self.spec = spec

    @hookimpl
    def feedback_adapter_strategies(self) -> list[StrategySpec]:
        return [self.spec]


class _BrokenError(Exception):
    """What broken evidence raises."""


class _Broken(Evidence):
    """Evidence that fails when its loss or its clamp has been asked for twice."""

    def __init__(self, whole: Evidence) -> None:
        self.whole, self.calls = whole, 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls > 2:
            raise _BrokenError

    def bind(self, specs: Any, batch: int) -> Evidence:
        self.whole = self.whole.bind(specs, batch)
        return self

    def loss(self, outputs: Outputs) -> Tensor:
        self._count()
        return self.whole.loss(outputs)

    def clamp(self, outputs: Outputs) -> Outputs:
        self._count()
        return self.whole.clamp(outputs)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        return self.whole.known(outputs)

    def take(self, rows: Tensor) -> Evidence:
        return _Broken(self.whole.take(rows))


def _some_labels(batch: int) -> Evidence:
    rows = [{"dog": float(i % 2), "snow": 1 - float(i % 2)} for i in range(batch)]
    return Labels([row if i % 3 != 2 else None for i, row in enumerate(rows)])
