"""Descending the evidence loss over pivots: what layerwise and residual share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from feedback_adapter.errors import OptionsError, did_you_mean
from feedback_adapter.options import above, at_least, check, flag, instance, one_of, optional, whole
from feedback_adapter.sites import Site
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.loop import Log, Stop, iterate
from feedback_adapter.strategies.moving import Moving, Point, clones, or_zeros
from feedback_adapter.strategies.plane import exact
from feedback_adapter.strategies.solvers import SOLVERS, Adam, Solver, take

__all__ = ["Descent", "DescentOptions", "descend"]


@dataclasses.dataclass(frozen=True)
class DescentOptions:
    """Options of the strategies that descend the evidence loss.

    The objective of each image is its evidence loss in nats plus
    `proximal / 2 * ||change / unit||^2`, where the change is that of all its pivots.

    Args:
        steps: Updates at most (layerwise: at most per pivot), at least 0.
        step_size: Learning rate of the solver, in the `unit` below, above 0.
        solver: A `Solver`, such as `Adam()`, or the name of one: `"adam"`, `"momentum"`,
            `"gradient"` (plain gradient descent) or `"lbfgs"`.
        unit: What a change is measured in: `"rms"`, the root mean square of the
            image's own activation at the pivot, or `"absolute"`, the activation's unit.
        proximal: Weight mu of the proximal term, in nats per unit^2, at least 0.
        tolerance: An image stops when its objective falls by less than this share of
            itself, `patience` times in a row; 0 or more.
        patience: See `tolerance`; at least 1. `None`: images never stop early.
        reduction: `"sum"`: each image's loss summed over what is known. `"mean"`: the
            mean over the batch and what is known, as published; images then share steps
            with their batch mates.
        keep: Which iterate is the result: each image's `"best"` by objective, or `"last"`.
        trace: Whether `Refinement.trace` holds the logits after every step.

    Raises:
        OptionsError: A value is out of its range.
    """

    steps: int = 10
    step_size: float = 0.01
    solver: Solver | str = Adam()
    unit: Literal["rms", "absolute"] = "rms"
    proximal: float = 0.0
    tolerance: float = 1e-3
    patience: int | None = 2
    reduction: Literal["sum", "mean"] = "sum"
    keep: Literal["best", "last"] = "best"
    trace: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.solver, str):
            if self.solver not in SOLVERS:
                hint = did_you_mean(self.solver, SOLVERS)
                raise OptionsError(f"There is no solver {self.solver!r}. {hint}")
            object.__setattr__(self, "solver", SOLVERS[self.solver])
        check(
            self,
            {
                "steps": whole(0),
                "step_size": above(0),
                "solver": instance(Solver, "a Solver, such as Adam()"),
                "unit": one_of("rms", "absolute"),
                "proximal": at_least(0),
                "tolerance": at_least(0),
                "patience": optional(whole(1)),
                "reduction": one_of("sum", "mean"),
                "keep": one_of("best", "last"),
                "trace": flag(),
            },
        )


class Descent(Moving):
    """Pivots that a solver moves down the gradient of the objective.

    Args:
        problem: The whole batch.
        options: Step size and so on.
        pivots: The pivots to move; by default all of the problem's.
        given: Activations fixed before, `{site name: (batch, ...)}`.
        decay: Coupled weight decay on the activation itself (the published layer-wise form).
    """

    hint = "Try a smaller step_size"

    def __init__(
        self,
        problem: Problem,
        options: DescentOptions,
        pivots: tuple[Site, ...] | None = None,
        *,
        given: Mapping[str, Tensor] | None = None,
        decay: float = 0.0,
    ) -> None:
        super().__init__(problem, pivots, given)
        self.options, self.decay = options, decay

    def init(self, *, grad: bool = True) -> Point:
        """Record one forward pass. See `Moving.init`."""
        point = super().init(grad=grad)
        self.states: list[dict[str, Any]] = [{} for _ in self.points]
        self.share = 1.0
        if self.options.reduction == "mean":
            known = self.problem.evidence.known(point.outputs).values()
            self.share = 1.0 / max(sum(int(mask.sum()) for mask in known), 1)
        return point

    def forget(self) -> None:
        """Free the activation to start from, where only the proximal term would need it."""
        if self.alone and not self.options.proximal:
            self.tail.forget_first()

    def measure(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Root mean squares, where the options say so. See `Moving.measure`."""
        return [_rms(a) for a in activations] if self.options.unit == "rms" else []

    def cost(self) -> Tensor | None:
        """The proximal term. See `Moving.cost`."""
        if not self.options.proximal:
            return None
        squares = [change.flatten(1).square().sum(1) for change in self._changes()]
        return self.options.proximal / 2 * torch.stack(squares).sum(0)

    def aim(self, point: Point) -> Tensor:
        """The gradients of the evidence losses. See `Moving.aim`."""
        found: Sequence[Tensor | None] = [None]
        if point.losses.requires_grad:
            found = torch.autograd.grad(point.losses.sum(), self.leaves, allow_unused=True)
        if all(gradient is None for gradient in found):
            raise self.leads_nowhere()
        self.gradients = or_zeros(found, self.leaves)
        return torch.ones_like(point.objective, dtype=torch.bool)

    def take(self, rows: Tensor) -> None:
        """Go on with some of the images. See `Moving.take`."""
        super().take(rows)
        self.forget()
        self.states = [take(state, rows) for state in self.states]
        self.gradients = [gradient[rows] for gradient in self.gradients]

    def step(self) -> None:
        """One step of the solver for each pivot. See `Moving.step`."""
        options = self.options
        assert isinstance(options.solver, Solver)  # names have become solvers by now
        changes = self._changes() if options.proximal else []
        moved = list(self.activations().values()) if self.decay else []
        gradients, self.gradients = self.gradients, []
        for i, gradient in enumerate(gradients):
            scale = self.units[i] if self.alone and self.units else None
            if scale is not None:
                gradient = gradient * scale
            if self.share != 1.0:
                gradient = gradient * self.share
            if options.proximal:
                gradient = gradient.add(changes[i], alpha=options.proximal)
            if self.decay:
                activation = moved[i] / self.units[i] if self.units else moved[i]
                gradient = gradient.add(activation, alpha=self.decay)
            step = options.solver.step(self.states[i], gradient, options.step_size)
            if scale is not None:
                step = step.mul_(scale)
            self.points[i] = step.add_(self.points[i])

    def _changes(self) -> list[Tensor]:
        """Each pivot's change, in units."""
        if not self.alone:
            return self.points
        change = self.points[0] - self.tail.activations[0]
        return [change.div_(self.units[0]) if self.units else change]


def descend(
    descent: Descent, log: Log | None = None, *, hold: bool
) -> tuple[Log, dict[str, Tensor]]:
    """Descend from the recorded forward pass on.

    Args:
        descent: What moves, not yet begun.
        log: What happened before; a new one by default.
        hold: Whether each image's result at the pivots is wanted.

    Returns:
        The log; and each pivot's result (batch, ...) by its site's name, or nothing.
    """
    options = descent.options
    point = descent.init()
    held = clones(descent.activations()) if hold else {}
    descent.forget()
    log = iterate(
        descent,
        point,
        options.steps,
        stop=Stop(options.tolerance, options.patience),
        keep=options.keep,
        trace=options.trace,
        log=log,
        result=held if hold else None,
    )
    return log, held


def _rms(activation: Tensor) -> Tensor:
    """Root mean square of each image's activation, (batch, 1, ..., 1), at least 1e-6."""
    mean = exact(activation).square().flatten(1).mean(1).sqrt().clamp(min=1e-6)
    return mean.reshape(-1, *[1] * (activation.ndim - 1))
