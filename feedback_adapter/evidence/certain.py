"""Certain facts: whether they can hold together, and how a posterior keeps them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.outputs import Output, Outputs

LIMIT = 1 - 1e-6
"""How certain a clamped posterior can be at most. The limit keeps its logits finite."""


ROUNDED = 0.01
"""By how much probabilities that are told of all that is possible may be short of 1."""


@dataclasses.dataclass(frozen=True)
class Certain:
    """What evidence says of an output without a doubt, with confidence 1.

    Args:
        output: Name of the output.
        value: (batch, labels), how likely each label is said to be, in [0, 1]: 1 present, 0
            absent, NaN where nothing is said.
        one_of: (batch, labels) bool: one of these labels holds, at least; no label where nothing
            is said.
    """

    output: str
    value: Tensor
    one_of: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class CertainOnMap(Certain, abc.ABC):
    """What evidence says of a map without a doubt.

    Its `value` says which labels are somewhere in an image (1) or nowhere (0).
    """

    last: ClassVar[bool] = False
    """Whether it is held after other facts, since it can be held in several ways."""

    tolerance: ClassVar[float] = 1e-3
    """How far a probability may be from what is certain; logits may be in half precision."""

    @abc.abstractmethod
    def hold(self, outputs: Outputs) -> Outputs:
        """The posterior with this fact held."""

    @abc.abstractmethod
    def broken(self, outputs: Outputs) -> str | None:
        """What of it doesn't hold in a posterior, as the beginning of a sentence; or nothing."""


def consistent(facts: Sequence[Certain], specs: Mapping[str, Output]) -> None:
    """Refuse certain facts that can't hold together."""
    why = _contradiction(facts, specs)
    if why:
        raise EvidenceError(f"Contradiction: {why}")


def _contradiction(facts: Sequence[Certain], specs: Mapping[str, Output]) -> str | None:
    for name, spec in specs.items():
        own = [fact for fact in facts if fact.output == name]
        if not own:
            continue
        values = torch.stack([fact.value.cpu() for fact in own])
        sets = [fact.one_of.cpu() for fact in own if fact.one_of is not None]
        present, absent = torch.eq(values, 1).any(0), torch.eq(values, 0).any(0)
        least = values.nan_to_num(torch.inf).amin(0)
        total = torch.where(least.isinf(), 0.0, least).sum(1, keepdim=True)
        exclusive = spec.one_holds and spec.kind != "map"
        if exclusive:
            for one_of in sets:
                absent = absent | (one_of.any(1, keepdim=True) & ~one_of)
        if spec.one_holds:
            sets = [*sets, torch.ones_like(absent)]
        for image, label, *_ in (present & absent).nonzero().tolist()[:1]:
            said = f"{spec.labels[label]!r} is said to be both present and absent"
            return f"{said} in image {image}."
        if exclusive:
            for image, *_ in (total > 1 + 1e-6).nonzero().tolist()[:1]:
                some = values.nan_to_num(0).amax(0)[image]
                told = (some > 0).nonzero()[:5, 0].tolist()
                said = {spec.labels[i]: round(float(some[i]), 6) for i in told}
                return (
                    f"in image {image} the classes of {name!r} exclude each other, so their "
                    f"probabilities can't be {said}. At most one can be 1, one must be."
                )
        most = values.nan_to_num(-1).amax(0)  # how likely each label can be
        most = torch.where(most < 0, 1.0, most).masked_fill(absent, 0.0)
        for one_of in sets:
            together = most.where(one_of, 0.0).sum(1)
            impossible = one_of.any(1) & (together < 1 - ROUNDED)
            for image, *_ in impossible.nonzero().tolist()[:1]:
                some = one_of[image].nonzero()[:5, 0].tolist()
                said = {spec.labels[i]: round(float(most[image, i]), 6) for i in some}
                if together[image] > 0:
                    why = f"one of {list(said)} must be right, so they can't be {said}"
                else:
                    why = f"each of {list(said)} is ruled out, but one must be right"
                return f"in image {image} {why}."
    return None


def hold(outputs: Outputs, facts: Sequence[Certain]) -> Outputs:
    """The posterior with certain facts held, whatever less certain evidence made of it."""
    on_maps = [fact for fact in facts if isinstance(fact, CertainOnMap)]
    facts = [fact for fact in facts if not isinstance(fact, CertainOnMap)]
    new, absent = dict(outputs), dict[str, Tensor]()
    for fact in facts:
        out = torch.eq(fact.value.to(new[fact.output]), 0)
        absent[fact.output] = absent.get(fact.output, out) | out
    for fact in facts:
        logits = new[fact.output]
        value = fact.value.to(logits)
        out, present = torch.eq(value, 0), torch.eq(value, 1)
        if outputs.specs[fact.output].kind == "multilabel":
            if fact.one_of is not None:  # the only one of a set that isn't ruled out
                left = fact.one_of.to(logits.device) & ~absent[fact.output]
                present = present | (left & (left.sum(1, keepdim=True) == 1))
            edge = torch.tensor(LIMIT, dtype=torch.float64, device="cpu").logit().item()
            held = torch.where(present, logits.clamp(min=edge), logits)
            new[fact.output] = torch.where(out, held.clamp(max=-edge), held)
            continue
        out = out | (present.any(1, keepdim=True) & ~present)
        if fact.one_of is not None:
            one_of = fact.one_of.to(logits.device)
            out = out | (one_of.any(1, keepdim=True) & ~one_of)
        log_p = logits.log_softmax(1)
        lowest = torch.finfo(logits.dtype).min
        inside = log_p.masked_fill(out, lowest).log_softmax(1)
        floor = torch.tensor((1 - LIMIT) / logits.shape[1], device="cpu").log().item()
        held = torch.where(out, log_p.clamp(max=floor), inside)
        new[fact.output] = torch.where(out.any(1, keepdim=True), held, logits)
    return _hold_on_maps(outputs.replace(**new), on_maps)


def _hold_on_maps(outputs: Outputs, facts: Sequence[CertainOnMap]) -> Outputs:
    for fact in sorted(facts, key=lambda fact: fact.last):
        outputs = fact.hold(outputs)
    for fact in facts if len(facts) > 1 else ():
        broken = fact.broken(outputs)
        if broken:
            raise EvidenceError(f"Contradiction: {broken}, and other evidence rules that out.")
    return outputs
