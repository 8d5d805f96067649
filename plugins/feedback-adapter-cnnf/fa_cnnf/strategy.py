"""The strategy `cnnf`: feedback generates from what is known (evidence at the top)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from fa_cnnf.loops import CNNF, DecoderLoop, TiedLoop, read_out
from feedback_adapter.errors import EvidenceError
from feedback_adapter.options import check, one_of, whole, within
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Problem, Strategy

__all__ = ["CNNFOptions", "CNNFStrategy"]


@dataclasses.dataclass(frozen=True)
class CNNFOptions:
    """Options of the strategy `cnnf`.

    Args:
        steps: T, feedback iterations, at least 0.
        step_size: eta, how far the feature moves towards its reconstruction, in [0, 1]. A
            model made by `fa_cnnf.convert` keeps its own, as do learned gammas.
        readout: `"last"`, or `"avg"`: the mean of the logits of all T + 1 iterates.
        norms: In tied mode, normalise feedback below every convolution.
        trace: Whether `Refinement.trace` holds the logits after every step.

    Raises:
        OptionsError: A value is out of its range.
    """

    steps: int = 2
    step_size: float = 0.1
    readout: Literal["last", "avg"] = "last"
    norms: bool = True
    trace: bool = False

    def __post_init__(self) -> None:
        readout = one_of("last", "avg")
        check(self, {"steps": whole(0), "step_size": within(0, 1), "readout": readout})


class CNNFStrategy(Strategy[CNNFOptions]):
    """Runs the loop with the top of its feedback clamped to the evidence.

    On a model made by `fa_cnnf.convert` this is CNN-F, at that model's site; on one made by
    `fa_cnnf.decoders` it is decoder mode, at its stages. On any other it is tied mode, at the
    first pivot.
    """

    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        options, evidence = self.options, problem.evidence
        model = problem.model
        first = problem.read(self._call(problem))
        (name,) = list(first)[:1]

        def outputs_of(logits: Tensor) -> Outputs:
            return Outputs({name: logits}, first.specs)

        try:
            evidence.loss(outputs_of(first[name]))
        except KeyError as missing:
            raise EvidenceError(
                f"strategy='cnnf' generates from the first output alone, {name!r}, and this "
                f"evidence is about {missing.args[0]!r}. Use strategy='residual'."
            ) from None

        def clamp(logits: Tensor) -> Tensor:
            return evidence.clamp(outputs_of(logits))[name]

        def generate(logits: Tensor) -> Tensor:
            return _within(clamp(logits), logits, first.specs[name].kind)

        def read(value: object) -> Tensor:
            return problem.read(value)[name]

        if isinstance(model, CNNF):
            with torch.no_grad():
                unroll = model.unroll(problem.inputs.images, options.steps, generate)
            pivots = (model.sites[0],)
        elif isinstance(model, DecoderLoop):
            with torch.no_grad():
                unroll = model.unroll(problem.inputs, options.steps, clamp, read)
            pivots = model.sites
        else:
            loop = TiedLoop(
                model,
                problem.pivots[0],
                options.steps,
                options.step_size,
                norms=options.norms,
                read=read,
            )
            unroll = loop.unroll(problem.inputs, generate)
            pivots = (problem.pivots[0].name,)
        logits = unroll.logits
        after = outputs_of(read_out(logits, options.readout))
        return Refinement.of(
            evidence,
            outputs_of(logits[0]),
            after,
            status=f"took all {options.steps} iterations, as the model was made to",
            losses=torch.stack([evidence.loss(outputs_of(o)) for o in logits]),
            steps=options.steps,
            pivots=pivots,
            trace={name: logits} if options.trace else None,
        )

    def _call(self, problem: Problem) -> object:
        with torch.no_grad():
            if isinstance(problem.model, CNNF):
                return problem.model(problem.inputs.images, 0)
            if isinstance(problem.model, DecoderLoop):
                return problem.model.unroll(problem.inputs, 0).logits[0]
            return problem.model(*problem.inputs.args, **problem.inputs.kwargs)


def _within(clamped: Tensor, logits: Tensor, kind: str) -> Tensor:
    """A clamped posterior as logits of the size that the model itself gives.

    Feedback starts from raw logits, and a clamped posterior differs from them by a shift that
    the softmax doesn't see, and by how unlikely it makes what is ruled out (1e-6 or so). So it
    gets the logits' own normaliser, and nothing falls below the least likely class; labels
    that don't exclude each other stay within the largest logit, of either sign.
    """
    if kind == "multiclass":
        shifted = clamped + logits.logsumexp(1, keepdim=True) - clamped.logsumexp(1, keepdim=True)
        return torch.maximum(shifted, logits.amin(1, keepdim=True))
    size = logits.abs().amax(1, keepdim=True)
    return torch.minimum(torch.maximum(clamped, -size), size)
