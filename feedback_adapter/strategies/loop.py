"""The loop that all iterative strategies run, and its log.

Images of a batch are independent problems that are solved at once. One that is done no longer
counts, and as soon as half of them are done the batch goes on without these, if the model can.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement, statuses
from feedback_adapter.sites.inputs import named_errors
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.moving import Moving, Point

__all__ = ["STUCK", "Log", "Stop", "iterate"]

STUCK = "unchanged: no step made what is known likelier; try another pivot or strategy"
"""Status of an image."""


@dataclasses.dataclass
class Log:
    """What happened to each image of a batch over all steps so far.

    Args:
        before: Outputs before any step.
        after: Outputs of the iterate that counts as the result.
        losses: (rows, batch) each; together a row for each step, the first before any.
        steps: (batch,), how many steps each image took.
        converged: (batch,) bool, whether it was done before the steps ran out.
        trace: Logits (rows, batch, ...) likewise, by output; no outputs where it isn't wanted.
        kept: (batch,), which row's outputs are in `after`.
        rows: How many rows there are.
    """

    before: Outputs
    after: Outputs
    losses: list[Tensor]
    steps: Tensor
    converged: Tensor
    trace: dict[str, list[Tensor]]
    kept: Tensor
    rows: int = 1

    @classmethod
    def start(cls, point: Point, *, trace: bool = False) -> Log:
        """The log of a batch before any step.

        Args:
            point: Where the batch is.
            trace: Whether the logits after every step will be wanted.
        """
        outputs, losses = point.outputs.detach(), point.losses.detach()
        none = torch.zeros(outputs.batch, dtype=torch.long, device=losses.device)
        return cls(
            before=outputs,
            after=outputs.clone(),
            losses=[losses[None]],
            steps=none,
            converged=none.bool(),
            trace={name: [value[None]] for name, value in outputs.items()} if trace else {},
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
        self.kept[rows[best]] = self.rows
        self.steps[moved] += 1
        losses = _row(self.losses)  # where it isn't a number, the last one stays
        losses[moved] = point.losses.detach().where(point.losses.isfinite(), losses[rows])[counts]
        for name, value in point.outputs.detach().items():
            self.after[name][rows[best]] = value[best]
            if name in self.trace:
                _row(self.trace[name])[moved] = value[counts]
        self.rows += 1

    def repeat(self, times: int) -> None:
        """Write down steps in which nothing moved. It takes no memory, however many they are."""
        for rows in (self.losses, *self.trace.values()):
            rows.append(rows[-1][-1:].expand(times, *rows[-1].shape[1:]))
        self.rows += times

    def refinement(
        self, problem: Problem, *, steps: int, activations: dict[str, Tensor] | None = None
    ) -> Refinement:
        """The result that these steps came to.

        Args:
            problem: The whole batch.
            steps: How many steps the options allowed: more may be tried.
            activations: What the pivots' activations became, where the problem says `hold`.
        """
        stuck = (self.steps > 0) & (self.kept == 0) & (self.losses[0][0] > 0)
        said = statuses(self.converged, f"ran out of steps: try steps={max(2 * steps, 1)}")
        status = [STUCK if one else other for one, other in zip(stuck.tolist(), said, strict=True)]
        return Refinement.of(
            problem.evidence,
            self.before,
            self.after,
            status=tuple(status),
            losses=torch.cat(self.losses),
            steps=self.steps,
            pivots=tuple(site.name for site in problem.pivots),
            trace={name: torch.cat(rows) for name, rows in self.trace.items()} or None,
            kept=self.kept,
            activations=activations or None,
        )


def _row(rows: list[Tensor]) -> Tensor:
    """A new last row, (batch, ...), which begins as the one before it."""
    rows.append(rows[-1][-1:].clone())
    return rows[-1][0]


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
    trace: bool = False,
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
        trace: Whether a new log keeps the logits after every step.
        log: What happened before; a new one by default.
        result: Whole batch's activations by site, `{name: (batch, ...)}`, where each image's
            result is to be written.

    Raises:
        EvidenceError: The loss of an image isn't a finite number.
    """
    rows = torch.arange(len(point.objective), device=point.objective.device)
    moves = active = torch.ones_like(rows, dtype=torch.bool)
    stale, start, best = torch.zeros_like(rows), point.objective, point.objective
    _refuse(point, rows, active, "The model's outputs aren't finite")
    log = log or Log.start(point, trace=trace)
    for step in range(1, steps + 1 + (moving.retries if steps else 0)):
        if step > steps:  # only those go on that have come to nothing yet
            active = active & moves & (log.kept[rows] == 0)
        if not bool(active.any()):
            log.repeat(max(steps - step + 1, 0))
            break
        with named_errors(moving.problem.model, moving.problem.inputs, moving.pivots[0].name):
            moves = moving.aim(point)  # derivatives may be the user's own code
        stay = active.nonzero().flatten()
        if 2 * len(stay) <= len(rows) and moving.splits(stay):
            moving.take(stay)
            rows, active, stale, moves = rows[stay], active[stay], stale[stay], moves[stay]
            start, best = start[stay], best[stay]
        moving.step()
        point = moving.look(grad=step < steps)
        if not moving.retries:
            _refuse(point, rows, active, moving.hint)
        fell = best - point.objective > stop.tolerance * best.abs()
        lower = (point.objective < best + moving.rounding * best.abs()) & (point.objective < start)
        better = lower if keep == "best" else torch.ones_like(fell)
        log.note(rows, active & moves, better, point)
        if result is not None:
            for name, activation in moving.activations().items():
                result[name][rows[active & better]] = activation[active & better]
        best = torch.where(lower, torch.minimum(best, point.objective), best)
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
