"""Gauss-Newton on the pivots: few steps, of a length that needs no tuning.

See docs/newton.md for the derivation. The tail is linearised, the evidence loss is not: each step
minimises it over a plane of activations, spanned by the gradient and by the change so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError, SiteError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.options import above, check, renamed, whole
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import Edit
from feedback_adapter.strategies.base import Problem, Strategy
from feedback_adapter.strategies.descent import Log

__all__ = ["Newton", "NewtonOptions"]

SEARCH = 6
"""Iterations, at most, of the search in the plane, which costs next to nothing."""

ENOUGH = 1e-2
"""The search ends when no image's objective falls by more than this share of itself."""


@dataclasses.dataclass(frozen=True)
class NewtonOptions:
    """Options of Gauss-Newton.

    The objective of each image is its evidence loss in nats plus `||change||^2 mu / 2`, where mu
    is such that a move of the logits by `prior_std`, along the loss's gradient, costs half a nat.

    Args:
        steps: Gauss-Newton steps, at least 0. One costs about as much as one and a half of
            gradient descent.
        prior_std: How far evidence may move logits, in nats, above 0: the standard deviation of
            what is believed of them beforehand.
        trace: Whether `Refinement.trace` holds the logits after every step.
        reach: Deprecated name of `prior_std`.

    Raises:
        OptionsError: A value is out of its range.
    """

    steps: int = 2
    prior_std: float = 4.0
    trace: bool = False
    reach: float | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        renamed(self, "reach", "prior_std")
        check(self, {"steps": whole(0), "prior_std": above(0)})


class Newton(Strategy[NewtonOptions]):
    """All pivots move together, each in units of its own activation's root mean square."""

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        log = _Run(problem, self.options).log
        return log.refinement(problem, steps=self.options.steps, trace=self.options.trace)


class _Run:
    """The steps of one batch.

    As in `Descent`, a pivot that moves alone is held as the activation it has got to, and of
    several the changes are held.
    """

    def __init__(self, problem: Problem, options: NewtonOptions) -> None:
        self.problem = problem
        self.tail = problem.tail()
        activations = self.tail.activations
        precise = all(activation.element_size() >= 4 for activation in activations)
        self.alone = len(activations) == 1 and precise
        self.scales = [_mean_square(a) for a in activations] if len(activations) > 1 else []
        self.points = [a.detach() if self.alone else torch.zeros_like(a) for a in activations]
        outputs, losses = self._evaluate(grad=options.steps > 0, check=True)
        self.length = torch.zeros_like(_exact(losses))  # squared, of the change
        self.weight = torch.zeros_like(self.length)  # mu
        self.response = torch.zeros_like(self.length)  # of logits to activations, squared
        self.plain = outputs.detach()
        self.log = Log.start(self.plain, losses.detach())
        best = losses.detach()
        rows = torch.arange(len(best), device=best.device)
        for step in range(options.steps):
            moved = self._step(outputs, losses, options.prior_std, first=step == 0)
            outputs, losses = self._evaluate(grad=step + 1 < options.steps)
            objective = losses.detach() + self.weight / 2 * self.length
            better = objective < best
            self.log.note(rows, moved, better, outputs.detach(), losses.detach())
            self.log.converged = ~better
            best = torch.minimum(best, objective)

    def _edits(self, points: Sequence[Tensor]) -> list[Edit]:
        if self.alone:
            return [lambda _, point=point: point for point in points]
        return [lambda activation, point=point: activation + point for point in points]

    def _evaluate(self, *, grad: bool, check: bool = False) -> tuple[Outputs, Tensor]:
        """Outputs and evidence losses (batch,) at the present points."""
        with torch.set_grad_enabled(grad):
            for point in self.points:
                point.requires_grad_(grad)
            outputs = self.problem.read(self.tail.run(self._edits(self.points), check=check))
            losses = self.problem.evidence.loss(outputs)
        found = losses.detach()
        bad = (~found.isfinite()).nonzero().flatten()
        if len(bad):
            image = int(bad[0])
            reason = "Try a smaller prior_std, or another pivot"
            if check:  # the plain model's
                reason = "The model's outputs aren't finite"
            raise EvidenceError(
                f"The evidence loss of image {image} is {float(found[image])}. {reason}."
            )
        return outputs, losses

    def _step(self, outputs: Outputs, losses: Tensor, prior_std: float, *, first: bool) -> Tensor:
        """Move the points; gives which images moved, (batch,) bool."""
        error, directions = self._gradients(outputs, losses)
        self.points = [point.detach() for point in self.points]
        changes = self._changes() if not first else []
        if self.scales:
            directions = [d * s for d, s in zip(directions, self.scales, strict=True)]
        if changes:
            pairs = zip(directions, changes, strict=True)
            directions = [torch.addcmul(d, c, _like(self.weight, c)) for d, c in pairs]
        steep = self._inner(directions)
        if first:
            self.response = steep / error.clamp(min=1e-30)
            self.weight = self.response / prior_std**2
        # as far down the gradient as moves the logits about as much as they are off
        size = -(error / (self.response * steep).clamp(min=1e-30)).sqrt()
        with torch.no_grad():
            probe = [
                torch.addcmul(point, direction, _like(size, direction))
                for point, direction in zip(self.points, directions, strict=True)
            ]
            there = self.problem.read(self.tail.run(self._edits(probe)))
        mixed = size * self._inner(directions, changes) if changes else torch.zeros_like(size)
        gram = (size * size * steep, mixed, self.length)
        plane = Plane(outputs.detach(), there, self.plain, gram, self.weight, self.problem.evidence)
        ahead, back = plane.lowest(1 if first else 2).unbind(1)
        self.length = plane.square(ahead, back)
        for index, direction in enumerate(directions):
            move = _like(ahead * size, direction)
            if changes:
                self.points[index].addcmul_(changes[index], _like(back, direction))
                self.points[index].addcmul_(direction, move)
            else:
                self.points[index] = torch.addcmul(self.points[index], direction, move)
        return error > 0

    def _changes(self) -> list[Tensor]:
        if not self.alone:
            return [point.clone() for point in self.points]
        return [self.points[0] - self.tail.activations[0].detach()]

    def _inner(self, left: Sequence[Tensor], right: Sequence[Tensor] | None = None) -> Tensor:
        """Inner product (batch,) of activations in units; with itself by default."""
        parts: list[Tensor] = []
        for index, a in enumerate(left):
            flat = _exact(a).flatten(1)
            if right is None:
                part = torch.linalg.vector_norm(flat, dim=1).square()
            else:
                part = torch.einsum("bi,bi->b", flat, _exact(right[index]).flatten(1))
            parts.append(part / _exact(self.scales[index]).flatten() if self.scales else part)
        return torch.stack(parts).sum(0)

    def _gradients(self, outputs: Outputs, losses: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Squared norm (batch,) of the gradient at the outputs, and the gradient at the pivots."""
        names = ", ".join(site.name for site in self.problem.pivots)
        nothing = SiteError(f"No known output depends on {names}. Choose an earlier pivot.")
        if not losses.requires_grad:
            raise nothing
        values = [value for value in outputs.values() if value.requires_grad]
        errors = torch.autograd.grad(losses.sum(), values, allow_unused=True, retain_graph=True)
        pairs = [(v, e) for v, e in zip(values, errors, strict=True) if e is not None]
        found = torch.autograd.grad(
            [v for v, _ in pairs], self.points, [e for _, e in pairs], allow_unused=True
        )
        if all(gradient is None for gradient in found):
            raise nothing
        gradients = [
            torch.zeros_like(point) if gradient is None else gradient
            for gradient, point in zip(found, self.points, strict=True)
        ]
        error = torch.stack([_exact(e).flatten(1).square().sum(1) for _, e in pairs]).sum(0)
        return error, gradients


class Plane:
    """The linearised tail over two directions: down the gradient, and along the change so far.

    Args:
        here: Outputs at the present point.
        there: Outputs at the probe, one unit down the gradient.
        plain: Outputs without a change, one unit back along it.
        gram: Inner products (batch,) of gradient direction and change: first with itself,
            first with second, second with itself.
        weight: What a unit of squared change costs (batch,), in nats times two.
        evidence: What is known.
    """

    def __init__(
        self,
        here: Outputs,
        there: Outputs,
        plain: Outputs,
        gram: tuple[Tensor, Tensor, Tensor],
        weight: Tensor,
        evidence: Evidence,
    ) -> None:
        self.gram, self.weight, self.evidence, self.specs = gram, weight, evidence, here.specs
        self.logits = {
            name: (_exact(z), _exact(there[name]) - _exact(z), _exact(z) - _exact(plain[name]))
            for name, z in here.items()
        }

    def square(self, ahead: Tensor, back: Tensor) -> Tensor:
        """Squared length (batch,) of the change at a place."""
        first, mixed, second = self.gram
        kept = 1 + back
        return first * ahead * ahead + 2 * mixed * ahead * kept + second * kept * kept

    def objective(self, place: Tensor) -> Tensor:
        """Evidence loss and cost of the change (batch,), at (batch, 2)."""
        ahead, back = place.unbind(1)
        logits = {
            name: torch.addcmul(torch.addcmul(z, _like(ahead, z), first), _like(back, z), second)
            for name, (z, first, second) in self.logits.items()
        }
        loss = self.evidence.loss(Outputs(logits, self.specs))
        return loss + self.weight / 2 * self.square(ahead, back)

    @torch.enable_grad()
    def _expand(self, place: Tensor, axes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Value (batch,), slope and curvature of the objective in the first one or two axes."""
        leaf = place.detach().requires_grad_()
        value = self.objective(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        rows = [
            torch.autograd.grad(slope[:, axis].sum(), leaf, retain_graph=axis + 1 < axes)[0]
            for axis in range(axes)
        ]
        curvature = torch.stack(rows, 1).detach()[:, :, :axes]
        return value.detach(), slope.detach()[:, :axes], curvature

    def lowest(self, axes: int) -> Tensor:
        """Where the objective is lowest (batch, 2), by Newton's method with Levenberg's damping.

        Args:
            axes: 1 where there is no change so far, else 2.
        """
        place = torch.zeros(len(self.weight), 2, dtype=self.weight.dtype, device=self.weight.device)
        damping = torch.full_like(self.weight, 1e-6)
        going = torch.ones_like(damping, dtype=torch.bool)
        value, slope, curvature = self._expand(place, axes)
        for _ in range(SEARCH):
            diagonal = curvature.diagonal(dim1=1, dim2=2).abs()
            ridge = torch.diag_embed(damping[:, None] * diagonal + 1e-20)
            move, _ = torch.linalg.solve_ex(curvature + ridge, slope)
            trial = place.clone()
            trial[:, :axes] -= move.nan_to_num(0.0, 0.0, 0.0)
            found, *derivatives = self._expand(trial, axes)
            rounding = 8 * torch.finfo(value.dtype).eps * value.abs()
            lower = going & (found <= value + rounding)
            going = going & ((value - found > ENOUGH * value) | ~lower)
            place = torch.where(lower[:, None], trial, place)
            value = torch.where(lower, found, value)
            slope = torch.where(lower[:, None], derivatives[0], slope)
            curvature = torch.where(lower[:, None, None], derivatives[1], curvature)
            damping = torch.where(lower, damping / 10, damping.clamp(min=1e-2) * 10)
            if not bool(going.any()):
                break
        return place


def _mean_square(activation: Tensor) -> Tensor:
    """Of each image's activation, (batch, 1, ..., 1), at least 1e-12."""
    mean = activation.detach().square().flatten(1).mean(1).clamp(min=1e-12)
    return _like(mean, activation)


def _like(values: Tensor, tensor: Tensor) -> Tensor:
    """A number per image, (batch,), in the shape and type that multiplies a tensor."""
    return values.to(tensor.dtype).reshape(-1, *[1] * (tensor.ndim - 1))


def _exact(tensor: Tensor) -> Tensor:
    """In float32 at least, and detached."""
    tensor = tensor.detach()
    return tensor if tensor.element_size() >= 4 else tensor.float()
