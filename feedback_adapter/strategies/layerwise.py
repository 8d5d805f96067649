"""Layer-wise feedback-prop (LF): move one pivot after the other.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop: Convolutional Neural Network
Inference under Partial Evidence", CVPR 2018, section 3.2 and Algorithm 1.
"""

from __future__ import annotations

import dataclasses
from typing import Self

from torch import Tensor

from feedback_adapter.options import at_least, check
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Problem, Strategy
from feedback_adapter.strategies.descent import Descent, DescentOptions, descend
from feedback_adapter.strategies.loop import Log

__all__ = ["Layerwise", "LayerwiseOptions"]


@dataclasses.dataclass(frozen=True)
class LayerwiseOptions(DescentOptions):
    """Options of layer-wise feedback-prop. See `DescentOptions` for the others.

    Args:
        decay: Coupled weight decay on the activation itself, at least 0, in nats per
            unit^2. It shrinks activations whatever the evidence says: for `reference`.
    """

    decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, {"decay": at_least(0)})

    @classmethod
    def reference(
        cls, *, steps: int = 10, step_size: float = 3e-3, weight_decay: float = 0.0
    ) -> Self:
        """The published notebook's loop: Adam on the activation, mean loss, last iterate.

        An image's result depends on its batch mates. With more than one pivot the
        notebook takes `steps` per pivot.

        Args:
            steps: Updates per pivot.
            step_size: Adam's learning rate, in the activation's own unit.
            weight_decay: Adam's weight decay, on the activation itself.
        """
        return cls(
            steps=steps, step_size=step_size, unit="absolute", patience=None,
            reduction="mean", keep="last", decay=weight_decay,
        )  # fmt: skip


class Layerwise(Strategy[LayerwiseOptions]):
    """Pivots move one after the other, in the order of the forward pass."""

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        given: dict[str, Tensor] = {}
        log: Log | None = None
        sites = problem.pivots
        if len(sites) > 1:
            problem = problem.keep()  # its tails are recorded one through the other
            sites = problem.tail().pivots
        for number, site in enumerate(sites, 1):
            hold = number < len(sites) or problem.hold
            descent = Descent(problem, self.options, (site,), given=given, decay=self.options.decay)
            log, held = descend(descent, log, hold=hold)
            given |= held
        assert log is not None, "a problem has at least one pivot"
        held = given if problem.hold else None
        return log.refinement(problem, steps=self.options.steps, activations=held)
