"""Descending the evidence loss over pivots: what layerwise and residual share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError, OptionsError, SiteError
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import Edit, Site
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.solvers import Adam, Solver, take

__all__ = ["Descent", "DescentOptions", "Log"]


@dataclasses.dataclass(frozen=True)
class DescentOptions:
    """Options of the strategies that descend the evidence loss.

    The objective of each image is its evidence loss in nats plus
    `proximal / 2 * ||change / unit||^2`, where the change is that of all its pivots.

    Args:
        steps: Updates at most (layerwise: at most per pivot), at least 0.
        step_size: Learning rate of the solver, in the `unit` below, above 0.
        solver: `Adam()`, `SGD()`, `LBFGS()` or your own `Solver`.
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
    step_size: float = 0.1
    solver: Solver = Adam()
    unit: Literal["rms", "absolute"] = "rms"
    proximal: float = 0.0
    tolerance: float = 1e-3
    patience: int | None = 2
    reduction: Literal["sum", "mean"] = "sum"
    keep: Literal["best", "last"] = "best"
    trace: bool = False

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps >= 0, "at least 0"),
            "step_size": (self.step_size > 0, "above 0"),
            "solver": (isinstance(self.solver, Solver), "a Solver, such as Adam()"),
            "unit": (self.unit in ("rms", "absolute"), "'rms' or 'absolute'"),
            "proximal": (self.proximal >= 0, "at least 0"),
            "tolerance": (self.tolerance >= 0, "at least 0"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1, or None"),
            "reduction": (self.reduction in ("sum", "mean"), "'sum' or 'mean'"),
            "keep": (self.keep in ("best", "last"), "'best' or 'last'"),
        }
        for name, (fine, possible) in rules.items():
            if not fine:
                value = getattr(self, name)
                raise OptionsError(f"{name}={value!r} is out of range: it must be {possible}.")


@dataclasses.dataclass
class Log:
    """What happened to each image of a batch over all steps so far."""

    before: Outputs
    after: Outputs
    losses: list[Tensor]
    steps: Tensor
    converged: Tensor
    trace: list[Outputs]

    @classmethod
    def start(cls, outputs: Outputs, losses: Tensor) -> Log:
        """The log of a batch before any step."""
        batch, device = outputs.batch, losses.device
        return cls(
            before=outputs,
            after=Outputs({name: value.clone() for name, value in outputs.items()}, outputs.specs),
            losses=[losses],
            steps=torch.zeros(batch, dtype=torch.long, device=device),
            converged=torch.zeros(batch, dtype=torch.bool, device=device),
            trace=[outputs],
        )

    def note(
        self, rows: Tensor, active: Tensor, better: Tensor, outputs: Outputs, losses: Tensor
    ) -> None:
        """Write down a step: `rows` are the images in the batch, `active` those that count."""
        moved = rows[active]
        self.repeat()
        self.losses[-1][moved] = losses[active]
        self.steps[moved] += 1
        for name, value in outputs.items():
            self.after[name][rows[active & better]] = value[active & better]
            self.trace[-1][name][moved] = value[active]

    def repeat(self) -> None:
        """Write down a step in which nothing moved."""
        last = self.trace[-1]
        self.losses.append(self.losses[-1].clone())
        self.trace.append(Outputs({n: v.clone() for n, v in last.items()}, last.specs))

    def refinement(self, problem: Problem, *, trace: bool) -> Refinement:
        """The result that these steps came to."""
        return Refinement(
            outputs_before=self.before,
            outputs_after=self.after,
            losses=torch.stack(self.losses),
            steps=self.steps,
            converged=self.converged,
            known=problem.evidence.known(self.before),
            pivots=tuple(site.name for site in problem.pivots),
            trace={name: torch.stack([o[name] for o in self.trace]) for name in self.before}
            if trace
            else None,
        )


class Descent:
    """One run of a solver over pivots that move together, images leaving as they converge.

    What moves is the change of each pivot's activation, in units.

    Args:
        problem: The whole batch.
        options: Step size, stopping and so on.
        pivots: The pivots to move, by this run.
        decay: Coupled weight decay on the activation itself (the published layer-wise form).
        given: Activations fixed by earlier runs, `{site name: (batch, ...)}`.
        log: What happened before, or `None` at the start.
    """

    def __init__(
        self,
        problem: Problem,
        options: DescentOptions,
        pivots: tuple[Site, ...],
        *,
        decay: float = 0.0,
        given: Mapping[str, Tensor] | None = None,
        log: Log | None = None,
    ) -> None:
        self.options, self.pivots, self.decay = options, pivots, decay
        self.given = dict(given or {})
        self.problem = problem
        self.tail = problem.tail(pivots, self.given)
        rms = options.unit == "rms"
        self.units = [_rms(a) for a in self.tail.activations] if rms else []
        self.changes = [torch.zeros_like(a) for a in self.tail.activations]
        self.states: list[dict[str, Any]] = [{} for _ in self.changes]
        self._left: list[Tensor] = []  # final activations of the whole batch, when needed
        device = problem.inputs.images.device
        self.rows = torch.arange(problem.inputs.batch, device=device)  # images in the batch
        self.active = torch.ones_like(self.rows, dtype=torch.bool)  # those that still move
        outputs, self.losses, self.best = self._evaluate(check=True)
        self.log = log or Log.start(outputs.detach(), self.losses.detach())
        self.share = 1.0
        if options.reduction == "mean":
            known = problem.evidence.known(outputs).values()
            self.share = 1.0 / max(sum(int(mask.sum()) for mask in known), 1)

    def final(self) -> dict[str, Tensor]:
        """Where the pivots of all images have got to, `{site name: (batch, ...)}`."""
        edits = zip(self._edits(self.changes), self.tail.activations, strict=True)
        moved = [edit(activation) for edit, activation in edits]
        for whole, now in zip(self._left, moved, strict=bool(self._left)):
            whole[self.rows] = now
        self._left = self._left or moved
        return {Site(*key).name: a for key, a in zip(self.tail.pivots, self._left, strict=True)}

    def run(self) -> Log:
        """Take the steps."""
        options, log = self.options, self.log
        stale = torch.zeros_like(self.rows)
        for step in range(1, options.steps + 1):
            if not bool(self.active.any()):
                log.repeat()
                continue
            gradients = self._gradients()
            if 2 * int(self.active.sum()) <= len(self.rows):
                stay = self.active.nonzero().flatten()
                gradients, stale = [g[stay] for g in gradients], stale[stay]
                self._leave(stay)
            self._move(gradients)
            outputs, self.losses, objective = self._evaluate(grad=step < options.steps)
            fell = self.best - objective > options.tolerance * self.best.abs()
            better = objective < self.best if options.keep == "best" else torch.ones_like(fell)
            log.note(self.rows, self.active, better, outputs.detach(), self.losses.detach())
            self.best = torch.minimum(self.best, objective)
            if options.patience is not None:
                stale = torch.where(fell, 0, stale + 1)
                self.active = self.active & (stale < options.patience)
                log.converged[self.rows] = ~self.active
        return log

    def _edits(self, changes: Sequence[Tensor]) -> list[Edit]:
        if not self.units:
            return [lambda a, change=change: a + change for change in changes]
        pairs = zip(changes, self.units, strict=True)
        return [lambda a, c=change, u=unit: torch.addcmul(a, c, u) for change, unit in pairs]

    def _evaluate(
        self, *, check: bool = False, grad: bool = True
    ) -> tuple[Outputs, Tensor, Tensor]:
        """Outputs, evidence losses and objectives (batch,) at the current changes."""
        with torch.set_grad_enabled(grad):
            self.leaves = [change.requires_grad_(grad) for change in self.changes]
            outputs = self.problem.read(self.tail.run(self._edits(self.leaves), check=check))
            losses = self.problem.evidence.loss(outputs)
        self.changes = [change.detach() for change in self.changes]
        objective = losses.detach()
        bad = (self.active & ~objective.isfinite()).nonzero().flatten()
        if len(bad):
            image, value = int(self.rows[bad[0]]), float(objective[bad[0]])
            why = "The model's outputs aren't finite" if check else "Try a smaller step_size"
            raise EvidenceError(f"The evidence loss of image {image} is {value}. {why}.")
        if self.options.proximal:
            squares = [change.flatten(1).square().sum(1) for change in self.changes]
            objective = objective + self.options.proximal / 2 * torch.stack(squares).sum(0)
        return outputs, losses, objective

    def _gradients(self) -> list[Tensor]:
        gradients: Sequence[Tensor | None] = [None]
        if self.losses.requires_grad:
            gradients = torch.autograd.grad(self.losses.sum(), self.leaves, allow_unused=True)
        if all(gradient is None for gradient in gradients):
            names = ", ".join(site.name for site in self.pivots)
            raise SiteError(f"No known output depends on {names}. Choose an earlier pivot.")
        return [
            torch.zeros_like(leaf) if gradient is None else gradient
            for gradient, leaf in zip(gradients, self.leaves, strict=True)
        ]

    def _move(self, gradients: list[Tensor]) -> None:
        options = self.options
        for i, gradient in enumerate(gradients):
            if self.share != 1.0:
                gradient = gradient * self.share
            if options.proximal:
                gradient = gradient.add(self.changes[i], alpha=options.proximal)
            if self.decay:
                activation = self._edits(self.changes)[i](self.tail.activations[i])
                if self.units:
                    activation = activation / self.units[i]
                gradient = gradient.add(activation, alpha=self.decay)
            step = options.solver.step(self.states[i], gradient, options.step_size)
            self.changes[i] = step.add_(self.changes[i])

    def _leave(self, stay: Tensor) -> None:
        """Go on with some of the images: those that are still falling."""
        self.final()
        self.problem = self.problem.take(stay)
        self.given = {name: tensor[stay] for name, tensor in self.given.items()}
        self.tail = self.problem.tail(self.pivots, self.given)
        self.rows, self.active, self.best = self.rows[stay], self.active[stay], self.best[stay]
        self.changes = [change[stay] for change in self.changes]
        self.units = [unit[stay] for unit in self.units]
        self.states = [take(state, stay) for state in self.states]


def _rms(activation: Tensor) -> Tensor:
    """Root mean square of each image's activation, (batch, 1, ..., 1), at least 1e-6."""
    mean = activation.detach().square().flatten(1).mean(1).sqrt().clamp(min=1e-6)
    return mean.reshape(-1, *[1] * (activation.ndim - 1))
