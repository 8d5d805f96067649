"""The loop that all iterative strategies run, and its log.

Images of a batch are independent problems that are solved at once. One that is done no longer
counts, and as soon as half of them are done the batch goes on without these.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement, statuses
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.moving import Moving, Point

__all__ = ["Log", "Stop", "iterate"]


@dataclasses.dataclass
class Log:
    """What happened to each image of a batch over all steps so far.

    Args:
        before: Outputs before any step.
        after: Outputs of the iterate that counts as the result.
        losses: (batch,) for each step, the first before any.
        steps: (batch,), how many steps each image took.
        converged: (batch,) bool, whether it was done before the steps ran out.
        trace: Outputs after each step, the first before any.
        kept: (batch,), which step's outputs are in `after`.
    """

    before: Outputs
    after: Outputs
    losses: list[Tensor]
    steps: Tensor
    converged: Tensor
    trace: list[Outputs]
    kept: Tensor

    @classmethod
    def start(cls, point: Point) -> Log:
        """The log of a batch before any step."""
        outputs, losses = point.outputs.detach(), point.losses.detach()
        none = torch.zeros(outputs.batch, dtype=torch.long, device=losses.device)
        return cls(
            before=outputs,
            after=outputs.clone(),
            losses=[losses],
            steps=none,
            converged=none.bool(),
            trace=[outputs],
            kept=none.clone(),
        )

    def note(self, rows: Tensor, counts: Tensor, better: Tensor, point: Point) -> None:
        """Write down a step.

        Args:
            rows: Which images are in the batch, (k,).
            counts: Which of them count, (k,) bool.
            better: Which of them are better than ever, (k,) bool.
            point: Where they got to.
        """
        moved, best = rows[counts], counts & better
        self.repeat()
        self.losses[-1][moved] = point.losses.detach()[counts]
        self.steps[moved] += 1
        self.kept[rows[best]] = len(self.losses) - 1
        for name, value in point.outputs.detach().items():
            self.after[name][rows[best]] = value[best]
            self.trace[-1][name][moved] = value[counts]

    def repeat(self) -> None:
        """Write down a step in which nothing moved."""
        self.losses.append(self.losses[-1].clone())
        self.trace.append(self.trace[-1].clone())

    def refinement(self, problem: Problem, *, steps: int, trace: bool) -> Refinement:
        """The result that these steps came to.

        Args:
            problem: The whole batch.
            steps: How many steps the options allowed: more may be tried.
            trace: Whether the logits after every step are wanted.
        """
        traces = None
        if trace:
            traces = {name: torch.stack([o[name] for o in self.trace]) for name in self.before}
        return Refinement.of(
            problem.evidence,
            self.before,
            self.after,
            status=statuses(self.converged, f"ran out of steps: try steps={max(2 * steps, 1)}"),
            losses=torch.stack(self.losses),
            steps=self.steps,
            pivots=tuple(site.name for site in problem.pivots),
            trace=traces,
            kept=self.kept,
        )


@dataclasses.dataclass(frozen=True)
class Stop:
    """When an image is done.

    Args:
        tolerance: Share of itself by which the objective must fall, at least.
        patience: How many steps in a row it may fall by less; `None`: images are never done.
    """

    tolerance: float = 0.0
    patience: int | None = None


def iterate(
    moving: Moving,
    point: Point,
    steps: int,
    *,
    stop: Stop = Stop(),
    keep: Literal["best", "last"] = "best",
    log: Log | None = None,
    result: dict[str, Tensor] | None = None,
) -> Log:
    """Take the steps.

    Args:
        moving: What moves.
        point: What its `init` gave.
        steps: How many at most.
        stop: When an image is done.
        keep: Which iterate is the result: each image's best by its objective, or the last.
        log: What happened before; a new one by default.
        result: Whole batch's activations by site, `{name: (batch, ...)}`, where each image's
            result is to be written.

    Raises:
        EvidenceError: The loss of an image isn't a finite number.
    """
    rows = torch.arange(len(point.objective), device=point.objective.device)
    active = torch.ones_like(rows, dtype=torch.bool)
    stale, best = torch.zeros_like(rows), point.objective
    _refuse(point, rows, active, "The model's outputs aren't finite")
    log = log or Log.start(point)
    for step in range(1, steps + 1):
        if not bool(active.any()):
            log.repeat()
            continue
        moves = moving.aim(point)
        if 2 * int(active.sum()) <= len(rows):
            stay = active.nonzero().flatten()
            moving.take(stay)
            rows, active, stale, best = rows[stay], active[stay], stale[stay], best[stay]
            moves = moves[stay]
        moving.step()
        point = moving.look(grad=step < steps)
        _refuse(point, rows, active, moving.hint)
        fell = best - point.objective > stop.tolerance * best.abs()
        better = point.objective < best if keep == "best" else torch.ones_like(fell)
        log.note(rows, active & moves, better, point)
        if result is not None:
            for name, activation in moving.activations().items():
                result[name][rows[active & better]] = activation[active & better]
        best = torch.minimum(best, point.objective)
        if stop.patience is not None:
            stale = torch.where(fell, 0, stale + 1)
            active = active & (stale < stop.patience)
            log.converged[rows] = ~active
    return log


def _refuse(point: Point, rows: Tensor, active: Tensor, why: str) -> None:
    """Name the first image whose loss isn't a number."""
    losses = point.losses.detach()
    bad = (active & ~losses.isfinite()).nonzero().flatten()
    if len(bad):
        image, value = int(rows[bad[0]]), float(losses[bad[0]])
        raise EvidenceError(f"The evidence loss of image {image} is {value}. {why}.")
