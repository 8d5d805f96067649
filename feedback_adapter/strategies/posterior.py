"""Label statistics of a training set, joined with what the model says.

Opinions on every unknown label are added up in log-odds: the model's own; how far the known
labels move it if probabilities and labels are jointly Gaussian, as over the training images; and
how far if the errors of logits go together as they did on images that the model wasn't trained
on. The first of the moves trusts training images, of which the model is too sure, and misses what
the second finds; together they err less than either.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from feedback_adapter.errors import OptionsError
from feedback_adapter.options import above, check, within
from feedback_adapter.prior import JOINT, LATENT, RIDGE, calm
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Facts, Problem, Strategy
from feedback_adapter.strategies.plane import exact

__all__ = ["Posterior", "PosteriorOptions", "where_statistics_help"]

BEST = 20.0
"""More than a checkpoint's own choice counts: no strategy measured better with statistics."""

EXACT = "converged: the result is a closed form"
"""Status of an image."""

UNUSED = "unchanged: the posterior can't use what is known of the image; try strategy='newton'"
"""Status of an image of which something is known that fixes no label, such as a caption."""


@dataclasses.dataclass(frozen=True)
class PosteriorOptions:
    """Options of the posterior. The defaults were good on dev, for words and for objects.

    Args:
        joint: Weight, in [-10, 10], of the joint Gaussian's move.
        joint_ridge: Variance of a known label's noise in it, above 0.
        latent: Weight, in [-10, 10], of the move by the couplings of logits.
        scale: What the model's logits are multiplied by, above 0: the inverse temperature.
        bias: What is added to the logits of all labels, in nats.
    """

    joint: float = JOINT
    joint_ridge: float = RIDGE
    latent: float = LATENT
    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            {
                "joint": within(-10, 10),
                "joint_ridge": above(0),
                "latent": within(-10, 10),
                "scale": above(0),
                "bias": within(-100, 100),
            },
        )


def where_statistics_help(facts: Facts) -> float | None:
    """How well the posterior suits: best where a label is known whose statistics are there."""
    if not facts.priors or not facts.inputs.batch:
        return None
    known = facts.known()
    helps = any(bool(known[name].any()) for name in facts.priors if name in known)
    return BEST if helps else None


class Posterior(Strategy[PosteriorOptions]):
    """A closed form, without pivots: needs `Adapter.priors`."""

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        if not problem.priors:
            raise OptionsError(
                "strategy='posterior' needs label statistics of a training set: "
                "adapter.fit_prior(probabilities, targets), or a checkpoint that has them. "
                "Without them use strategy='residual'."
            )
        options, evidence, said = self.options, problem.evidence, problem.unrefined()
        before = said.replace(**{name: exact(z) for name, z in said.items()})
        known, clamped = evidence.known(before), evidence.clamp(before)
        new: dict[str, Tensor] = {}
        for name, prior in problem.priors.items():
            logits, mask, values = before[name], known[name], clamped.probabilities()[name]
            own = prior.to(values)
            joint = own.joint_move(logits, values, mask, options.joint_ridge)
            latent = own.latent_move(calm(logits), values, mask)
            mixed = options.scale * logits + options.bias
            mixed = mixed + options.joint * joint + options.latent * latent
            mixed = mixed + clamped[name] - logits  # what the evidence says of it by itself
            mixed = torch.where(mask, clamped[name], mixed)
            new[name] = torch.where(mask.any(1, keepdim=True), mixed, clamped[name])
        after = clamped.replace(**new)
        used = evidence.loss(before) == 0  # nothing to use
        for name, value in before.items():
            used = used | torch.ne(after[name], value).flatten(1).any(1)
        status = tuple(EXACT if is_used else UNUSED for is_used in used.tolist())
        after = after.replace(**{name: z.to(said[name].dtype) for name, z in after.items()})
        return Refinement.of(evidence, said, said, after=after, status=status)
