"""The strategy `dfm`: a converted network looks again, with what is known put in."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fa_dfm.errors import ConversionError
from fa_dfm.known import Known
from fa_dfm.network import DFM
from fa_dfm.predictions import centred, probabilities, uniform
from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.options import at_least, check, optional, whole
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement, statuses
from feedback_adapter.strategies.base import Facts, Problem, Strategy

__all__ = ["DFMOptions", "DFMStrategy", "known_of", "suits"]


@dataclasses.dataclass(frozen=True)
class DFMOptions:
    """Options of the strategy `dfm`.

    Args:
        steps: T, how often the network looks, at least 1; `None` for as often as it was made to.
        tolerance: An image whose prediction moves by less in a step (mean change of its
            probabilities) is done. 0: every image takes all steps.
        trace: Whether `Refinement.trace` holds the logits after every step.

    Raises:
        OptionsError: A value is out of its range.
    """

    steps: int | None = None
    tolerance: float = 0.0
    trace: bool = False

    def __post_init__(self) -> None:
        check(self, {"steps": optional(whole(1)), "tolerance": at_least(0)})


class DFMStrategy(Strategy[DFMOptions]):
    """Runs the loop of a network made by `fa_dfm.convert`, with and without what is known."""

    @torch.no_grad()
    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`.

        Raises:
            ConversionError: The model isn't a network that looks again.
            EvidenceError: The evidence is about an output that the network doesn't have.
        """
        net, evidence, options = problem.model, problem.evidence, self.options
        if not isinstance(net, DFM):
            raise ConversionError(
                f"strategy='dfm' runs networks made by fa_dfm.convert, and this model is a "
                f"{type(net).__name__}: convert it and train the feedback, or load a checkpoint "
                "that has one. strategy='residual' refines any model as it is."
            )
        before = problem.unrefined()
        (name,) = before
        images = problem.inputs.images

        def outputs_of(logits: Tensor) -> Outputs:
            return Outputs({name: logits}, before.specs)

        known = known_of(evidence, before, name, net)
        unroll = net.unroll(images, known, options.steps, tolerance=options.tolerance)
        steps = len(unroll.logits)
        told = (known.weight > 0).flatten(1).any(1).reshape(-1, *[1] * (before[name].ndim - 1))
        logits = torch.where(told, unroll.logits, before[name])  # the others stay as they are
        settled = (unroll.changes[-1] <= options.tolerance) & (options.tolerance > 0)
        return Refinement.of(
            evidence,
            before,
            outputs_of(logits[-1]),
            status=statuses(
                settled, f"took all {steps} steps: steps={2 * steps} may move it further"
            ),
            losses=torch.stack(
                [evidence.loss(before), *(evidence.loss(outputs_of(o)) for o in logits)]
            ),
            steps=unroll.steps,
            pivots=("feedback",),
            trace={name: torch.cat([before[name][None], logits])} if options.trace else None,
        )


def known_of(evidence: Evidence, outputs: Outputs, name: str, net: DFM) -> Known:
    """What evidence says, as the loop reads it.

    Evidence shows itself by what it makes of a prediction that knows nothing: where it leaves
    that alone nothing is known, and how far it moves it is how sure it is.

    Args:
        evidence: Bound to the outputs.
        outputs: Of the model, for their shapes.
        name: The output that the network's loop predicts.
        net: The network.

    Raises:
        EvidenceError: The evidence is about another output.
    """
    blank = Outputs({name: torch.zeros_like(outputs[name])}, outputs.specs)
    try:
        told = probabilities(evidence.clamp(blank)[name], net.kind)
        mask = evidence.known(blank)[name]
    except KeyError as missing:
        raise EvidenceError(
            f"strategy='dfm' feeds back the output {name!r} alone, and this evidence is about "
            f"{missing.args[0]!r}. Use strategy='residual'."
        ) from None
    moved = centred(told, net.kind) * mask
    certain = moved.amax(1, keepdim=True).clamp(0, 1)
    weight = certain if net.kind == "multiclass" else moved.abs()
    rest = (1 - weight) * uniform(net.feedback.labels, net.kind)
    target = torch.where(weight > 0, (told - rest) / weight.clamp(min=1e-6), told)
    return Known(weight, target.clamp(0, 1))


def suits(facts: Facts) -> float | None:
    """The default for networks that look again, unless their checkpoint names another one."""
    return 5.0 if isinstance(facts.model, DFM) else None
