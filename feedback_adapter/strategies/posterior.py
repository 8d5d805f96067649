"""Label statistics of a training set, joined with what the model says and with feedback.

Two opinions on every unknown label are mixed, both in log-odds. The first is naive Bayes: the
model's own opinion, plus what the known labels add to the label's prior, as if image and labels
were independent given the label. The second is the joint Gaussian's over the model's probabilities
and the labels. Either errs where the other doesn't: the first counts twice what image and labels
both say, the second trusts training images, of which the model is too sure. Feedback-prop adds a
third opinion: what the image shows once it is looked at with the known labels in mind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from feedback_adapter.errors import OptionsError
from feedback_adapter.options import above, check, within
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Facts, Problem, Strategy
from feedback_adapter.strategies.residual import Residual, ResidualOptions

__all__ = ["Posterior", "PosteriorOptions", "where_statistics_help"]

BEST = 20.0
"""More than a checkpoint's own choice counts: no strategy measured better with statistics."""

EXACT = "converged: the result is a closed form"
"""Status of an image where no feedback-prop came first."""


@dataclasses.dataclass(frozen=True)
class PosteriorOptions:
    """Options of the posterior.

    Args:
        joint: Weight, in [0, 1], of the joint Gaussian; naive Bayes has the rest.
        label_ridge: Variance of a known label's noise in the labels' Gaussian, above 0.
        joint_ridge: Variance of a known label's noise in the joint Gaussian, above 0.
        feedback: Options of residual feedback-prop to run first (or its values by name, as
            JSON has them), or `None` for none: faster, no pivots.
        feedback_weight: Share, in [0, 1], of what it moved that is added.
    """

    joint: float = 0.5
    label_ridge: float = 2e-2
    joint_ridge: float = 2e-2
    feedback: ResidualOptions | None = dataclasses.field(default_factory=ResidualOptions)
    feedback_weight: float = 0.3

    def __post_init__(self) -> None:
        check(
            self,
            {
                "joint": within(0, 1),
                "feedback_weight": within(0, 1),
                "label_ridge": above(0),
                "joint_ridge": above(0),
            },
        )
        object.__setattr__(self, "feedback", _options(self.feedback))


def where_statistics_help(facts: Facts) -> float | None:
    """How well the posterior suits: best where a label is known whose statistics are there."""
    if not facts.priors or not facts.inputs.batch:
        return None
    known = facts.known()
    helps = any(bool(known[name].any()) for name in facts.priors if name in known)
    return BEST if helps else None


class Posterior(Strategy[PosteriorOptions]):
    """Closed form, after feedback: needs `Adapter.priors`."""

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        options = self.options
        if not problem.priors:
            raise OptionsError(
                "strategy='posterior' needs label statistics of a training set: "
                "adapter.fit_prior(probabilities, targets), or a checkpoint that has them. "
                "Without them use strategy='residual'."
            )
        first: Refinement | None = None
        if options.feedback is not None and options.feedback_weight > 0:
            first = Residual(options.feedback).refine(problem)
            before, after = first.outputs_before, first.outputs_after
        else:
            before = problem.unrefined()
            after = before
        evidence = problem.evidence
        known, clamped = evidence.known(before), evidence.clamp(before)
        new: dict[str, torch.Tensor] = {}
        for name, prior in problem.priors.items():
            mask = known[name]
            values = clamped.probabilities()[name]
            prior = prior.to(values)
            mixed = before[name] + prior.from_labels(values, mask, options.label_ridge)
            if options.joint > 0:
                p = before.probabilities()[name]
                joint = prior.from_all(p, values, mask, options.joint_ridge)
                mixed = torch.lerp(mixed, joint, options.joint)
            mixed = mixed + options.feedback_weight * (after[name] - before[name])
            mixed = mixed + clamped[name] - before[name]  # what the evidence says of it by itself
            mixed = torch.where(mask, clamped[name], mixed)
            new[name] = torch.where(mask.any(1, keepdim=True), mixed, before[name])
        result: Outputs = after.replace(**new)
        if first is None:
            return Refinement.of(evidence, before, result, status=EXACT)
        losses = torch.cat([first.losses, evidence.loss(result).detach().unsqueeze(0)])
        return Refinement.of(
            evidence,
            before,
            result,
            status=tuple(
                said.replace("try steps=", "try feedback's steps=") for said in first.status
            ),
            losses=losses,
            steps=first.steps + 1,
            pivots=first.pivots,
        )


def _options(value: Any) -> ResidualOptions | None:
    if value is None or isinstance(value, ResidualOptions):
        return value
    if isinstance(value, Mapping):
        try:
            return ResidualOptions(**value)
        except TypeError as error:
            raise OptionsError(f"feedback={dict(value)!r} aren't residual's: {error}.") from error
    raise OptionsError(f"feedback={value!r} must be ResidualOptions, or None for none.")
