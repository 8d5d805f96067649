"""A coarse class as evidence: the fine class lies in a set.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.2, which needs a
head that predicts the coarse classes; the exact marginal over the fine ones needs none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence, Unbound
from feedback_adapter.evidence.bound import rows_of
from feedback_adapter.evidence.certain import LIMIT, Certain, consistent
from feedback_adapter.evidence.given import everywhere, output_of, per_image, repeated, short, unit
from feedback_adapter.evidence.hierarchy import Groups, members_of
from feedback_adapter.names import find, place
from feedback_adapter.outputs import Output, Outputs

Through = Literal["classes", "head", "both"]


class Coarse(Unbound):
    """The coarse class is known: the fine class is one of its labels.

    On a multilabel output, at least one of its labels holds.

    Args:
        classes: The coarse class of every image ("dog"), or one per image, `None` where
            it isn't known. Instead of a name a tuple of names: one of those.
        hierarchy: `{coarse class: its fine labels}`. By default the output's own
            (`Output.hierarchy`), else WordNet's, for models with ImageNet's labels.
        through: Which of the model's predictions should agree: `"classes"`, the fine
            classes (loss = -log of the probability that it is one of the set, in nats);
            `"head"`, an output of the model whose labels are the coarse classes (loss =
            its cross-entropy, as in the paper); or `"both"`. Whatever it is, the coarse class
            holds afterwards in both outputs, where both are there.
        confidence: How far to trust it, in [0, 1]: multiplies the loss, and the clamp
            moves that share of the way.
        output: Which output has the fine classes; needed only where it isn't clear.

    Names are found without case, with `_` or `-` for spaces, and in the plural.

    Raises:
        EvidenceError: Not names; when bound: an unknown class, labels that the hierarchy doesn't
            know, a wrong number of images, no output that fits.

    Example:
        >>> Coarse("dog")
        Coarse('dog')
    """

    said = "classes"

    def __init__(
        self,
        classes: str | Sequence[str | tuple[str, ...] | None],
        *,
        hierarchy: Groups | None = None,
        through: Through = "classes",
        confidence: float = 1.0,
        output: str | None = None,
    ) -> None:
        if not isinstance(through, str) or through not in get_args(Through):
            raise EvidenceError(
                f"through={short(through)} is not possible: {get_args(Through)} are."
            )
        self.classes = per_image(classes, "The coarse class", "a name")
        self.hierarchy, self.output = hierarchy, output
        self.through: Through = through
        self.confidence = unit(confidence, "confidence")

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Look the classes up and make masks. See `Evidence.bind`."""
        each = repeated(self.classes, batch, "Coarse classes")
        named = [(c,) if isinstance(c, str) else tuple(c or ()) for c in each]
        known = list(dict.fromkeys(name for names in named for name in names))
        heads = [
            name
            for name, spec in specs.items()
            if spec.kind == "multiclass" and known and all(find(c, spec.labels) for c in known)
        ]
        if self.through != "classes" and not heads:
            raise EvidenceError(
                f"through={self.through!r} needs an output whose labels are the coarse classes "
                f"({', '.join(known[:3])}); this model has {list(specs)}. Use 'classes'."
            )
        masks: dict[str, Tensor] = {}
        stated: list[str] = []
        try:
            fine = self._fine(specs, heads)
            spec = specs[fine]
            groups = spec.hierarchy if self.hierarchy is None else self.hierarchy
            members = {name: members_of(name, spec.labels, groups) for name in known}
            masks[fine] = _mask(named, members, len(spec.labels))
            stated += [fine] if self.through != "head" else []
        except EvidenceError:
            if self.through != "head":
                raise
        if heads and heads[0] not in masks:
            labels = specs[heads[0]].labels
            members = {name: [place(name, labels)] for name in known}
            masks[heads[0]] = _mask(named, members, len(labels))
        stated += heads[:1] if self.through != "classes" else []
        sets = _Sets(masks, torch.full((batch,), self.confidence, device="cpu"), stated)
        consistent(sets.certain(), specs)
        return sets

    def _fine(self, specs: Mapping[str, Output], heads: list[str]) -> str:
        labelled = [n for n, s in specs.items() if s.kind in ("multiclass", "multilabel")]
        fits = labelled
        if self.output is None:
            fits = [n for n in fits if n not in heads] or fits
            own = self.hierarchy if isinstance(self.hierarchy, Mapping) else {}
            members = [m for g in own.values() if isinstance(g, (list, tuple)) for m in g]
            fits = [n for n in fits if all(find(m, specs[n].labels) for m in members)] or fits
            fits = [n for n in fits if specs[n].hierarchy is not None] or fits
            fits = [n for n in fits if specs[n].kind == "multiclass"] or fits
        return output_of(specs, self.output, fits, "Coarse", "one of fine classes")

    def __repr__(self) -> str:
        return f"Coarse({self.classes!r})"


class _Sets(Evidence):
    """A label of an output lies in a set: `{output: (batch, labels) bool}`; empty: not known.

    All outputs with a set hold it after the clamp; those of `stated` are in the loss.
    """

    def __init__(self, masks: dict[str, Tensor], confidence: Tensor, stated: Sequence[str]) -> None:
        self.masks, self.confidence, self.stated = masks, confidence, tuple(stated)

    def certain(self) -> list[Certain]:
        """See `Evidence.certain`."""
        sure = (self.confidence == 1).unsqueeze(1)
        return [
            Certain(name, torch.full(mask.shape, torch.nan, device=mask.device), mask & sure)
            for name, mask in self.masks.items()
        ]

    def loss(self, outputs: Outputs) -> Tensor:
        total: list[Tensor] = []
        inside = self._inside(outputs)
        for mask, log_p_any in (inside[name] for name in self.stated):
            total.append(torch.where(mask.any(1), -log_p_any, 0.0))
        return torch.stack(total).sum(0) * self.confidence.to(total[0])

    def clamp(self, outputs: Outputs) -> Outputs:
        new: dict[str, Tensor] = {}
        for name, (mask, log_p_any) in self._inside(outputs).items():
            logits = outputs[name]
            share = self.confidence.to(logits).unsqueeze(1)
            told = mask.any(1, keepdim=True) & (share > 0)
            if outputs.specs[name].kind == "multilabel":
                gain = torch.logaddexp((1 - share).log(), share.log() - log_p_any[:, None])
                log_p = (F.logsigmoid(logits) + gain).clamp(max=math.log(LIMIT))
                moved = torch.where(mask, log_p - (-log_p.expm1()).log(), logits)
            else:
                log_p = logits.log_softmax(1)
                inside = log_p.masked_fill(~mask, -torch.inf).log_softmax(1)
                mixed = share * inside.exp() + (1 - share) * log_p.exp()
                moved = mixed.clamp(min=(1 - LIMIT) / logits.shape[1]).log()
            new[name] = torch.where(told, moved, logits)
        return outputs.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """Known are a set's only label, and the classes outside of a set."""
        known: dict[str, Tensor] = {}
        for name, every in self.masks.items():
            mask = every & (self.confidence > 0).unsqueeze(1)
            known[name] = mask & (mask.sum(1, keepdim=True) == 1)
            if outputs.specs[name].kind == "multiclass":
                known[name] = known[name] | (mask.any(1, keepdim=True) & ~mask)
        return everywhere(outputs, known)

    def take(self, rows: Tensor) -> _Sets:
        confidence = self.confidence[rows.to(self.confidence.device)]
        return _Sets(rows_of(self.masks, rows), confidence, self.stated)

    def _inside(self, outputs: Outputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Each mask, and the log-probability (batch,) that one of its labels holds."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, mask in self.masks.items():
            logits, mask = outputs[name], mask.to(outputs[name].device)
            some = mask | ~mask.any(1, keepdim=True)  # no empty set: its gradient would be NaN
            if outputs.specs[name].kind == "multilabel":
                found[name] = mask, log_any(logits, some)
            else:
                inside = logits.masked_fill(~some, -torch.inf).logsumexp(1)
                found[name] = mask, inside - logits.logsumexp(1)
        return found


def log_any(logits: Tensor, mask: Tensor) -> Tensor:
    """log P(at least one of some independent labels holds), (batch,), exact and safe.

    P = sum_i p_i prod_(j < i) (1 - p_j): the first that holds is label i. No term is negative,
    so nothing cancels.

    Args:
        logits: (batch, labels).
        mask: Of the same shape, bool: which labels; at least one of each image.
    """
    silent = torch.where(mask, F.logsigmoid(-logits), 0.0)
    before = silent.cumsum(1) - silent
    first = (F.logsigmoid(logits) + before).masked_fill(~mask, -torch.inf)
    return first.logsumexp(1)


def parse_coarse(text: str) -> Coarse:
    """Make evidence of a coarse class on the command line: `dog`, or `dog|cat` for either."""
    return Coarse([tuple(name.strip() for name in text.split("|"))])


def _mask(
    named: Sequence[tuple[str, ...]], members: Mapping[str, list[int]], labels: int
) -> Tensor:
    mask = torch.zeros(len(named), labels, dtype=torch.bool, device="cpu")
    for row, names in enumerate(named):
        for name in names:
            mask[row, members[name]] = True
    return mask
