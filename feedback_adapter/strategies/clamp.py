"""The model's own posterior given the evidence, without feedback."""

from __future__ import annotations

import dataclasses

import torch

from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Facts, Problem, Strategy
from feedback_adapter.strategies.plane import exact

STATUS = "converged: what is known is held fixed, and the network is as it was"
"""Status of an image."""


@dataclasses.dataclass(frozen=True)
class ClampOptions:
    """The clamp has no options."""


class Clamp(Strategy[ClampOptions]):
    """Nothing moves: what the evidence fixes is held fixed, as it is after any strategy."""

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        before, evidence = problem.unrefined(), problem.evidence
        fine = before.replace(**{name: exact(value) for name, value in before.items()})
        losses = torch.stack([evidence.loss(fine), evidence.loss(evidence.clamp(fine))])
        return Refinement.of(evidence, before, before, status=STATUS, losses=losses, steps=0)


def where_it_is_enough(facts: Facts) -> float:
    """How well the clamp suits: best where all that is known is about classes.

    Whatever else the model predicts, the clamp says nothing of it. So it isn't preferred where
    there are other outputs, unless these are the coarse classes of the same output.
    """
    known = [name for name, mask in facts.known().items() if bool(mask.any())]
    if not known or any(facts.outputs[name].kind != "multiclass" for name in known):
        return 0.0
    coarse = {label for name in known for label in facts.outputs[name].hierarchy or ()}
    others = [spec.labels for name, spec in facts.outputs.items() if name not in known]
    return 2.0 if all(coarse.issuperset(labels) for labels in others) else 0.0
