"""Gauss-Newton on the pivots: few steps, of a length that needs no tuning.

See docs/newton.md for the derivation. The tail is linearised, the evidence loss is not: each step
minimises it over a plane of activations, spanned by the gradient and by the change so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from feedback_adapter.options import above, check, flag, renamed, whole
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Problem, Strategy
from feedback_adapter.strategies.loop import iterate
from feedback_adapter.strategies.moving import Moving, Point, clones, or_zeros
from feedback_adapter.strategies.plane import Plane, exact, like

SHORTER = 0.25
"""What is left of a step after which the objective is higher than before it."""

FLAT = 1e2
"""Times the rounding of numbers, a gradient of this share of its evidence part is none."""

CONVERGED = 0.1
"""An image is done if its last step had no more than this share in the fall of its loss. Of 21
images that had so little left, twice as many steps moved no probability by more than 4%."""

TINY = 1e-37
"""Nothing is divided by less: activations may be 1e15 as well as 1e-15, and these are squares."""

PARALLEL = 0.1
"""Sine of the least angle between gradient and change at which the two span a plane: at a smaller
one rounding would decide, and there is less to gain than its square."""


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
        check(self, {"steps": whole(0), "prior_std": above(0), "trace": flag()})


class Newton(Strategy[NewtonOptions]):
    """All pivots move together, each in units of its own activation's root mean square."""

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        steps = self.options.steps
        moving = GaussNewton(problem, self.options.prior_std)
        point = moving.init(grad=steps > 0)
        held = clones(moving.activations()) if problem.hold else None
        log = iterate(moving, point, steps, trace=self.options.trace, result=held)
        losses, last = torch.cat(log.losses), log.steps[None]
        now, past = losses.gather(0, last)[0], losses.gather(0, (last - 1).clamp(min=0))[0]
        log.converged = past - now <= CONVERGED * (losses[0] - now)
        return log.refinement(problem, steps=steps, activations=held)


class GaussNewton(Moving):
    """Pivots that move to the lowest place of a plane, over which the tail is linear."""

    retries = 8
    rounding = 1e-6

    def __init__(self, problem: Problem, prior_std: float) -> None:
        super().__init__(problem)
        self.prior_std = prior_std
        self.weight: Tensor | None = None  # mu, (batch,); none before the first step

    def init(self, *, grad: bool = True) -> Point:
        """Record one forward pass. See `Moving.init`."""
        point = super().init(grad=grad)
        activations = self.tail.activations
        self.scales = [_mean_square(a) for a in activations] if len(activations) > 1 else []
        self.length = torch.zeros_like(exact(point.losses))  # squared, of the change
        self.back, self.value = self.points, exact(point.objective)  # to turn back to
        self.unrefined = point.outputs.detach()
        return point

    def measure(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Changes are held in the activations' own units. See `Moving.measure`."""
        del activations
        return []

    def cost(self) -> Tensor | None:
        """What the length of the change costs. See `Moving.cost`."""
        return None if self.weight is None else self.weight / 2 * self.length

    def aim(self, point: Point) -> Tensor:
        """The gradients at the outputs and at the pivots. See `Moving.aim`."""
        value = exact(point.objective)
        self.rose = ~(value <= self.value + self.rounding * self.value.abs())
        self.value = torch.where(self.rose, self.value, value)
        self.directions: list[Tensor] | None = None
        if self.weight is not None and (not point.losses.requires_grad or bool(self.rose.all())):
            return self.error > 0  # some turn back, none goes on
        if not point.losses.requires_grad:
            raise self.leads_nowhere()
        values = [value for value in point.outputs.values() if value.requires_grad]
        total = point.losses.sum()
        errors = torch.autograd.grad(total, values, allow_unused=True, retain_graph=True)
        pairs = [(v, e) for v, e in zip(values, errors, strict=True) if e is not None]
        found = torch.autograd.grad(
            [v for v, _ in pairs], self.leaves, [e for _, e in pairs], allow_unused=True
        )
        if all(gradient is None for gradient in found):
            raise self.leads_nowhere()
        self.directions = or_zeros(found, self.leaves)
        self.error = torch.stack([exact(e).flatten(1).square().sum(1) for _, e in pairs]).sum(0)
        self.here = point.outputs.detach()
        return self.error > 0

    def step(self) -> None:
        """Move to the lowest place of the plane, or turn back. See `Moving.step`."""
        start, before = self.points, self.back
        if self.directions is not None:
            self._go(self.directions)
            self.back = start
        if bool(self.rose.any()):
            short = [torch.lerp(b, p, SHORTER) for b, p in zip(before, start, strict=True)]
            self.points = _where(self.rose, short, self.points)
            self.back = _where(self.rose, before, self.back)
            self.length = torch.where(self.rose, self._inner(self._changes()), self.length)

    def _go(self, directions: list[Tensor]) -> None:
        """Move to the lowest place of the plane."""
        error, first = self.error, self.weight is None
        changes = [] if first else self._changes()
        if self.scales:
            directions = [d * s for d, s in zip(directions, self.scales, strict=True)]
        if self.weight is not None:
            directions = _plus(directions, changes, self.weight)
        steep = self._inner(directions)
        if self.weight is None:
            self.response = steep / error.clamp(min=TINY)  # of logits to activations, squared
            self.weight = self.response / self.prior_std**2
        # as far down the gradient as moves the logits about as much as they are off
        size = -error.sqrt() / (self.response.sqrt() * steep.sqrt()).clamp(min=TINY)
        flat = FLAT * torch.finfo(steep.dtype).eps  # below it the gradient is rounding
        size = torch.where(steep > flat**2 * self.response * error, size, 0.0)
        both, mixed = torch.zeros_like(self.rose), torch.zeros_like(size)
        if changes:
            # what of the gradient isn't along the change already, unless next to nothing is left
            mixed = self._inner(directions, changes)
            along = mixed / self.length.clamp(min=TINY)
            apart = _plus(directions, changes, -along)
            rest = self._inner(apart)
            both = rest > PARALLEL**2 * steep
            directions = _where(both, apart, directions)
            size = torch.where(both, size * (steep / rest.clamp(min=0.1 * steep)).sqrt(), size)
            steep, mixed = torch.where(both, rest, steep), torch.where(both, 0.0, size * mixed)
        with torch.no_grad():
            probe = _plus(self.points, directions, size)
            there = self.problem.read(self.tail.run(self.edits(probe)))
        gram = ((size * steep.sqrt()).square(), mixed, self.length)
        evidence = self.problem.evidence
        ends = [evidence.read(outputs) for outputs in (self.here, there, self.unrefined)]
        plane = Plane(ends[0], ends[1], ends[2], gram, self.weight, evidence)
        ahead, back = plane.lowest(both).unbind(1)
        if first:  # the gradient says which way is down, also where the tail bends before the probe
            ahead = ahead.abs()
        self.length = plane.square(ahead, back).clamp(min=0)  # but for rounding
        self.points = _plus(self.points, directions, ahead * size)
        for point, change in zip(self.points, changes, strict=False):
            point.addcmul_(change, like(back, change))

    def take(self, rows: Tensor) -> None:
        """Go on with some of the images. See `Moving.take`."""
        super().take(rows)
        self.scales = [scale[rows] for scale in self.scales]
        if self.directions is not None:
            self.directions = [direction[rows] for direction in self.directions]
        self.back = [point[rows] for point in self.back]
        self.rose, self.value = self.rose[rows], self.value[rows]
        self.unrefined, self.here = self.unrefined.take(rows), self.here.take(rows)
        self.error, self.length = self.error[rows], self.length[rows]
        if self.weight is not None:
            self.weight, self.response = self.weight[rows], self.response[rows]

    def _changes(self) -> list[Tensor]:
        if not self.alone:
            return [point.clone() for point in self.points]
        return [self.points[0] - self.tail.activations[0].detach()]

    def _inner(self, left: Sequence[Tensor], right: Sequence[Tensor] | None = None) -> Tensor:
        """Inner product (batch,) of activations in units; with itself by default."""
        parts: list[Tensor] = []
        for index, a in enumerate(left):
            flat = exact(a).flatten(1)
            if right is None:
                part = torch.linalg.vector_norm(flat, dim=1).square()
            else:
                part = torch.einsum("bi,bi->b", flat, exact(right[index]).flatten(1))
            parts.append(part / exact(self.scales[index]).flatten() if self.scales else part)
        return torch.stack(parts).sum(0)


def _plus(points: Sequence[Tensor], directions: Sequence[Tensor], far: Tensor) -> list[Tensor]:
    """Points moved along directions, by a number per image, (batch,)."""
    pairs = zip(points, directions, strict=True)
    return [torch.addcmul(p, d, like(far, d)) for p, d in pairs]


def _where(which: Tensor, some: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Some images' tensors from one list, (batch,) bool, the others' from another one."""
    pairs = zip(some, others, strict=True)
    return [torch.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs]


def _mean_square(activation: Tensor) -> Tensor:
    """Each image's mean square activation, (batch, 1, ..., 1), at least 1e-12."""
    mean = exact(activation).square().flatten(1).mean(1).clamp(min=1e-12)
    return mean.reshape(-1, *[1] * (activation.ndim - 1))
