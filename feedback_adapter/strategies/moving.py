"""Activations on the move: what the loop asks of a strategy, and what the strategies share.

A solver of the loop is three methods: `init` records one forward pass, `aim` says where to go
from a point, `step` goes there. The rest is here: holding what moves, running the tail, and going
on with some of the images only.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from feedback_adapter.errors import FeedbackAdapterError, SiteError
from feedback_adapter.outputs import Outputs
from feedback_adapter.sites import Edit, Site
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.plane import exact


@dataclasses.dataclass(frozen=True)
class Point:
    """Where the images in the batch have got to.

    Args:
        outputs: What the model says there, with its autograd graph.
        losses: (batch,), the evidence losses in nats, with their graph.
        objective: (batch,), what is minimised: the losses and what the change costs, in nats.
    """

    outputs: Outputs
    losses: Tensor
    objective: Tensor


class Moving(abc.ABC):
    """Pivots that move together, for a batch from which images may leave.

    What moves is the change of each pivot's activation, in units. A pivot that moves alone is
    held as the activation it has got to, which is as good and saves one tensor. Of several, the
    later ones' activations depend on the earlier ones, and the changes are held. So they are in
    less than float32, where small steps would be rounded away; then changes and losses are in
    float32.

    Args:
        problem: The whole batch.
        pivots: The pivots to move; by default all of the problem's.
        given: Activations fixed before, `{site name: (batch, ...)}`.
    """

    hint: str = ""
    """What to try where a loss isn't a finite number."""

    retries: int = 0
    """Steps beyond the last one for images that have come to nothing yet. A solver with retries
    turns back by itself where a loss has risen or isn't a finite number."""

    rounding: float = 0.0
    """Share of itself by which an objective may rise and still count as the best: of two that
    are equal but for rounding the later is kept, whatever the batch."""

    def __init__(
        self,
        problem: Problem,
        pivots: tuple[Site, ...] | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.problem, self.pivots = problem, pivots or problem.pivots
        self.given = dict(given or {})
        self.mixes, self.held = False, dict[str, Tensor]()

    def init(self, *, grad: bool = True) -> Point:
        """Record one forward pass, and look at where it leads.

        Args:
            grad: Whether a step will follow.
        """
        self.tail = self.problem.tail(self.pivots, self.given)
        activations = self.tail.activations
        precise = all(activation.element_size() >= 4 for activation in activations)
        self.alone = len(activations) == 1 and precise
        start = [a.detach() if self.alone else torch.zeros_like(a) for a in activations]
        self.points = [exact(point) for point in start]
        self.units = self.measure(activations)
        return self.look(grad=grad, check=True)

    @abc.abstractmethod
    def measure(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """What each pivot's change is held in units of, (batch, 1, ...); empty for its own."""

    @abc.abstractmethod
    def aim(self, point: Point) -> Tensor:
        """Find out where to go from a point; it may be kept for `step`.

        Returns:
            (batch,) bool, which images are going to move at all.
        """

    @abc.abstractmethod
    def step(self) -> None:
        """Go there: replace `points`."""

    @abc.abstractmethod
    def cost(self) -> Tensor | None:
        """What the present change costs beside the evidence loss, (batch,) in nats."""

    def splits(self, rows: Tensor) -> bool:
        """Whether some of the images, by index (k,), can go on without the others.

        They can't in a model that mixes images or wants a fixed number of them.
        """
        if self.mixes:
            return False
        some = self.problem.take(rows)
        given = {name: tensor[rows] for name, tensor in self.given.items()}
        try:
            tail = some.tail(self.pivots, given)
        except FeedbackAdapterError:
            self.mixes = True
            return False
        alone, together = some.read(tail.value), self.problem.read(self.tail.value).take(rows)
        self.mixes = not all(_close(alone[name], together[name]) for name in alone)
        if not self.mixes:
            self._part = some, given, tail
        return not self.mixes

    def take(self, rows: Tensor) -> None:
        """Go on with the images that `splits` was asked for; also between aim and step."""
        self.problem, self.given, self.tail = self._part
        self.points = [point[rows] for point in self.points]
        self.units = [unit[rows] for unit in self.units]
        self.held = {name: activation[rows] for name, activation in self.held.items()}

    def look(self, *, grad: bool, check: bool = False) -> Point:
        """Run the tail at the present points.

        Args:
            grad: Whether a step will follow.
            check: Whether to compare with the recorded pass, where nothing has moved yet.
        """
        with torch.set_grad_enabled(grad):
            self.leaves = [point.requires_grad_(grad) for point in self.points]
            edits = self.edits(self.leaves)
            if self.problem.hold:
                pairs = zip(self.tail.pivots, edits, strict=True)
                edits = [self._held(site, edit) for site, edit in pairs]
            outputs = self.problem.read(self.tail.run(edits, check=check))
            outputs.for_images(self.problem.inputs.batch)
            fine = {n: z.float() for n, z in outputs.items() if z.element_size() < 4}
            losses = self.problem.evidence.loss(outputs.replace(**fine) if fine else outputs)
        self.points = [point.detach() for point in self.points]
        cost = self.cost()
        objective = losses.detach() if cost is None else losses.detach() + cost
        return Point(outputs, losses, objective)

    def edits(self, points: Sequence[Tensor]) -> list[Edit]:
        """What each pivot's activation becomes at these points."""
        if self.alone:
            return [lambda _, point=point: point for point in points]
        if not self.units:
            return [lambda a, change=change: (a + change).to(a.dtype) for change in points]
        pairs = zip(points, self.units, strict=True)
        return [
            lambda a, c=change, u=unit: torch.addcmul(a.to(c.dtype), c, u).to(a.dtype)
            for change, unit in pairs
        ]

    def _held(self, site: Site, edit: Edit) -> Edit:
        """The same edit, of which `held` keeps what the pivot's activation becomes."""

        def held(activation: Tensor) -> Tensor:
            new = edit(activation)
            self.held[site.name] = new.detach().clone()  # the model may write to it
            return new

        return held

    def activations(self) -> dict[str, Tensor]:
        """What each pivot's activation has become, by the site's name.

        Of several pivots this is known only where the problem says `hold`: a later one's depends
        on the earlier ones. Otherwise it is the recorded activation with the pivot's own change.
        """
        if self.held:
            return self.held
        edits = zip(self.edits(self.points), self.tail.activations, strict=True)
        found = [edit(activation) for edit, activation in edits]
        return {site.name: a for site, a in zip(self.tail.pivots, found, strict=True)}

    def leads_nowhere(self) -> SiteError:
        """The error for pivots that nothing known depends on."""
        names = ", ".join(site.name for site in self.pivots)
        return SiteError(f"No known output depends on {names}. Choose an earlier pivot.")


def clones(activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in tensors of their own."""
    return {name: activation.detach().clone() for name, activation in activations.items()}


def or_zeros(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Gradients, with zeros for what nothing depends on."""
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for gradient, tensor in zip(gradients, like, strict=True)
    ]


def _close(left: Tensor, right: Tensor) -> bool:
    """Whether two outputs differ by rounding only."""
    scale = right.detach().nan_to_num(posinf=0.0, neginf=0.0).abs().amax().clamp(min=1e-6)
    margin = float(scale) * torch.finfo(right.dtype).eps ** 0.5
    return torch.allclose(left, right, rtol=0, atol=margin, equal_nan=True)
