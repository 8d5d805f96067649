"""Descending the evidence loss over pivots: what layerwise and residual share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError, OptionsError, SiteError, did_you_mean
from feedback_adapter.options import above, at_least, check, instance, one_of, optional, whole
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement, statuses
from feedback_adapter.sites import Edit, Site
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.solvers import SOLVERS, Adam, Solver, take

__all__ = ["Descent", "DescentOptions", "Log"]


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
            },
        )


@dataclasses.dataclass
class Log:
    """What happened to each image of a batch over all steps so far."""

    before: Outputs
    after: Outputs
    losses: list[Tensor]
    steps: Tensor
    converged: Tensor
    trace: list[Outputs]
    kept: Tensor

    @classmethod
    def start(cls, outputs: Outputs, losses: Tensor) -> Log:
        """The log of a batch before any step."""
        batch, device = outputs.batch, losses.device
        return cls(
            before=outputs,
            after=outputs.clone(),
            losses=[losses],
            steps=torch.zeros(batch, dtype=torch.long, device=device),
            converged=torch.zeros(batch, dtype=torch.bool, device=device),
            trace=[outputs],
            kept=torch.zeros(batch, dtype=torch.long, device=device),
        )

    def note(
        self, rows: Tensor, active: Tensor, better: Tensor, outputs: Outputs, losses: Tensor
    ) -> None:
        """Write down a step: `rows` are the images in the batch, `active` those that count."""
        moved = rows[active]
        self.repeat()
        self.losses[-1][moved] = losses[active]
        self.steps[moved] += 1
        self.kept[rows[active & better]] = len(self.losses) - 1
        for name, value in outputs.items():
            self.after[name][rows[active & better]] = value[active & better]
            self.trace[-1][name][moved] = value[active]

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


class Descent:
    """One run of a solver over pivots that move together, images leaving as they converge.

    What moves is the change of each pivot's activation, in units. A pivot that moves alone is
    held as the activation it has got to, which is as good and saves one tensor (in less than
    float32 it isn't as good: small steps would be rounded away). Of several, the later ones'
    activations depend on the earlier ones, and the changes are held.

    Args:
        problem: The whole batch.
        options: Step size, stopping and so on.
        pivots: The pivots to move, by this run.
        decay: Coupled weight decay on the activation itself (the published layer-wise form).
        given: Activations fixed by earlier runs, `{site name: (batch, ...)}`.
        log: What happened before, or `None` at the start.
        hold: Whether to hold each image's result at the pivots, for `final`.
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
        hold: bool = False,
    ) -> None:
        self.options, self.pivots, self.decay = options, pivots, decay
        self.given = dict(given or {})
        self.problem = problem
        self.tail = problem.tail(pivots, self.given)
        activations = self.tail.activations
        self.units = [_rms(a) for a in activations] if options.unit == "rms" else []
        precise = all(activation.element_size() >= 4 for activation in activations)
        self.alone = len(pivots) == 1 and precise
        self.points = [a.detach() if self.alone else torch.zeros_like(a) for a in activations]
        self.states: list[dict[str, Any]] = [{} for _ in self.points]
        device = problem.inputs.images.device
        self.rows = torch.arange(problem.inputs.batch, device=device)  # images in the batch
        self.active = torch.ones_like(self.rows, dtype=torch.bool)  # those that still move
        # the whole batch's, since an image may leave it, or go on moving after it has stopped
        self._finals = [a.detach().clone() for a in self._moved()] if hold else []
        plain = problem.evidence.loss(problem.read(self.tail.value))
        self._refuse(plain, "The model's outputs aren't finite")
        outputs, self.losses, self.best = self._evaluate(check=True)
        self._forget()
        self.log = log or Log.start(outputs.detach(), self.losses.detach())
        self.share = 1.0
        if options.reduction == "mean":
            known = problem.evidence.known(outputs).values()
            self.share = 1.0 / max(sum(int(mask.sum()) for mask in known), 1)

    def final(self) -> dict[str, Tensor]:
        """Each image's result at the pivots, `{site name: (batch, ...)}`. Needs `hold`."""
        return {site.name: a for site, a in zip(self.tail.pivots, self._finals, strict=True)}

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
            if self._finals:
                taken = self.active & better
                for whole, now in zip(self._finals, self._moved(), strict=True):
                    whole[self.rows[taken]] = now[taken]
            self.best = torch.minimum(self.best, objective)
            if options.patience is not None:
                stale = torch.where(fell, 0, stale + 1)
                self.active = self.active & (stale < options.patience)
                log.converged[self.rows] = ~self.active
        return log

    def _edits(self, points: Sequence[Tensor]) -> list[Edit]:
        if self.alone:
            return [lambda _, point=point: point for point in points]
        if not self.units:
            return [lambda a, change=change: a + change for change in points]
        pairs = zip(points, self.units, strict=True)
        return [lambda a, c=change, u=unit: torch.addcmul(a, c, u) for change, unit in pairs]

    def _moved(self) -> list[Tensor]:
        """Each pivot's recorded activation with its own change."""
        edits = zip(self._edits(self.points), self.tail.activations, strict=True)
        return [edit(activation) for edit, activation in edits]

    def _changes(self) -> list[Tensor]:
        """Each pivot's change, in units."""
        if not self.alone:
            return self.points
        change = self.points[0] - self.tail.activations[0]
        return [change.div_(self.units[0]) if self.units else change]

    def _forget(self) -> None:
        """Free the activation to start from where only the proximal term would need it."""
        if self.alone and not self.options.proximal:
            self.tail.forget_first()

    def _evaluate(
        self, *, check: bool = False, grad: bool = True
    ) -> tuple[Outputs, Tensor, Tensor]:
        """Outputs, evidence losses and objectives (batch,) at the current changes."""
        with torch.set_grad_enabled(grad):
            self.leaves = [point.requires_grad_(grad) for point in self.points]
            outputs = self.problem.read(self.tail.run(self._edits(self.leaves), check=check))
            losses = self.problem.evidence.loss(outputs)
        self.points = [point.detach() for point in self.points]
        objective = losses.detach()
        self._refuse(objective, "Try a smaller step_size")
        if self.options.proximal:
            squares = [change.flatten(1).square().sum(1) for change in self._changes()]
            objective = objective + self.options.proximal / 2 * torch.stack(squares).sum(0)
        return outputs, losses, objective

    def _refuse(self, losses: Tensor, why: str) -> None:
        """Name the first image whose loss isn't a number."""
        bad = (self.active & ~losses.isfinite()).nonzero().flatten()
        if len(bad):
            image, value = int(self.rows[bad[0]]), float(losses[bad[0]])
            raise EvidenceError(f"The evidence loss of image {image} is {value}. {why}.")

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
        changes = self._changes() if options.proximal else []
        moved = self._moved() if self.decay else []
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
            assert isinstance(options.solver, Solver)  # names have become solvers by now
            step = options.solver.step(self.states[i], gradient, options.step_size)
            if scale is not None:
                step = step.mul_(scale)
            self.points[i] = step.add_(self.points[i])

    def _leave(self, stay: Tensor) -> None:
        """Go on with some of the images: those that are still falling."""
        self.problem = self.problem.take(stay)
        self.given = {name: tensor[stay] for name, tensor in self.given.items()}
        self.tail = self.problem.tail(self.pivots, self.given)
        self._forget()
        self.rows, self.active, self.best = self.rows[stay], self.active[stay], self.best[stay]
        self.points = [point[stay] for point in self.points]
        self.units = [unit[stay] for unit in self.units]
        self.states = [take(state, stay) for state in self.states]


def _rms(activation: Tensor) -> Tensor:
    """Root mean square of each image's activation, (batch, 1, ..., 1), at least 1e-6."""
    mean = activation.detach().square().flatten(1).mean(1).sqrt().clamp(min=1e-6)
    return mean.reshape(-1, *[1] * (activation.ndim - 1))
