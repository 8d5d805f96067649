"""Residual feedback-prop (RF): add a change to every pivot, all at once.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop: Convolutional Neural Network
Inference under Partial Evidence", CVPR 2018, section 3.3.
"""

from __future__ import annotations

import dataclasses
from typing import Self

from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Problem, Strategy
from feedback_adapter.strategies.descent import Descent, DescentOptions, descend

__all__ = ["Residual", "ResidualOptions"]


@dataclasses.dataclass(frozen=True)
class ResidualOptions(DescentOptions):
    """Options of residual feedback-prop. See `DescentOptions`."""

    @classmethod
    def reference(
        cls, *, steps: int = 10, step_size: float = 3e-3, weight_decay: float = 0.0
    ) -> Self:
        """The published notebook's loop: Adam on the residuals, mean loss, last iterate.

        An image's result depends on its batch mates.

        Args:
            steps: Updates of all pivots.
            step_size: Adam's learning rate, in the activation's own unit.
            weight_decay: Adam's weight decay, on the residuals.
        """
        return cls(
            steps=steps, step_size=step_size, unit="absolute", patience=None,
            reduction="mean", keep="last", proximal=weight_decay,
        )  # fmt: skip


class Residual(Strategy[ResidualOptions]):
    """All pivots move together."""

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        log, held = descend(Descent(problem, self.options), hold=problem.hold)
        return log.refinement(problem, steps=self.options.steps, activations=held)
