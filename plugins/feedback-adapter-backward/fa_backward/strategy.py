"""The strategy `backward`: explain the image by objects, starting from what is known."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_backward.errors import BackwardError
from fa_backward.model import GenerativeModel
from fa_backward.net import GenerativeNet
from fa_backward.pieces import SEEN
from fa_backward.place import Place
from fa_backward.search import Hypotheses
from feedback_adapter.evidence import All, Evidence
from feedback_adapter.options import check, whole, within
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Facts, Problem, Strategy

__all__ = ["BackwardOptions", "BackwardStrategy", "suits"]


@dataclasses.dataclass(frozen=True)
class BackwardOptions:
    """Options of the strategy `backward`.

    Args:
        fine: How many places are searched closely, at least 0; see `SearchOptions`.
        tau: What a nat of log-odds counts in a logit, in [0, 1]: elements of a site depend on
            each other, so that their sum says too much by far. At 0 nothing is searched but what
            is known to be there.
        bias: Is added to the logit.

    Raises:
        OptionsError: A value is out of its range.
    """

    fine: int = 4
    tau: float = 0.01
    bias: float = 0.0

    def __post_init__(self) -> None:
        check(self, {"fine": whole(0), "tau": within(0, 1)})


def suits(facts: Facts) -> float | None:
    """The default where a place is known and the model can look there."""
    with_place = isinstance(facts.model, GenerativeNet) and places(facts.evidence)
    return 11.0 if with_place else None


class BackwardStrategy(Strategy[BackwardOptions]):
    """Searches each image for one object of each category.

    What is known to be there is explained first, at its place if that is known, and taken out
    of the image; the other categories are looked for in the rest. A category's logit is then
    the network's own for the rest, which is the prior, and tau logsumexp over the beam of
    (log-odds + log P(H)), and the bias. What is known holds as it is. An image of which nothing
    is known stays as it is.
    """

    @torch.no_grad()
    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. See `Strategy.refine`."""
        if not isinstance(problem.model, GenerativeNet):
            raise BackwardError(
                f"strategy='backward' needs a model with a generative model of its activations, "
                f"and this is a {type(problem.model).__name__}. Load a "
                "checkpoint that brings one, or fit it: fa_backward.GenerativeModel.fit."
            )
        model = problem.model.generative()
        model = model.with_options(fine=self.options.fine)
        before = problem.unrefined()
        (name,) = list(before)[:1]
        clamped = problem.evidence.clamp(before)[name]
        known = problem.evidence.known(before)[name]
        where = places(problem.evidence)
        rows: list[Tensor] = []
        status = ["nothing is known of it"] * len(problem.inputs.images)
        for index, image in enumerate(problem.inputs.images):
            at = [p for p in where if p.box(index) is not None]
            if not at and not known[index].any():
                rows.append(before[name][index])
                continue
            present = known[index] & (clamped[index] > 0)
            logits = self._logits(problem.model, model, image, present, known[index], at, index)
            rows.append(torch.where(known[index], before[name][index], logits))
            status[index] = "searched the whole image once"
        refined = before.replace(**{name: torch.stack(rows)})
        result = Refinement.of(problem.evidence, before, refined, status="")
        return dataclasses.replace(result, status=tuple(status))

    def _logits(
        self,
        net: GenerativeNet,
        model: GenerativeModel,
        image: Tensor,
        present: Tensor,
        known: Tensor,
        places: list[Place],
        index: int,
    ) -> Tensor:
        def look(centres: Tensor) -> Tensor:
            return sum((p.log_prior(index, centres) for p in places), centres.new_zeros(()))

        place = look if places else None
        rest = image
        for category in present.nonzero()[:, 0].tolist():
            (found,) = model.backward(rest[None], [model.categories[category]], place=place)
            hole = F.max_pool2d((found.mask > SEEN)[None].float(), 3, 1, 1)
            rest = rest * (1 - hole)
        if present.any():
            place = None  # the place was that of what is known to be there
        logits = net(rest[None])[0] + self.options.bias
        if not self.options.tau:
            return logits
        for category in (~known).nonzero()[:, 0].tolist():
            (found,) = model.backward(rest[None], [model.categories[category]], place=place)
            logits[category] += self.options.tau * total(found.alternatives)
        return logits


def total(found: Hypotheses) -> Tensor:
    """log of the sum over a beam of p(scene | H) P(H), compared with an empty scene."""
    return torch.logsumexp(found.score, 0).float()


def places(evidence: Evidence) -> list[Place]:
    """Every `Place` in some evidence."""
    parts = evidence.parts if isinstance(evidence, All) else (evidence,)
    return [part for part in parts if isinstance(part, Place)]
