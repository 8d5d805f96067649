"""A coarse class as evidence: the fine class lies in a set.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.2, which needs a
head that predicts the coarse classes; the exact marginal over the fine ones needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError, ModelError, did_you_mean
from feedback_adapter.evidence.base import Evidence, Unbound
from feedback_adapter.evidence.hierarchy import Groups, members_of
from feedback_adapter.outputs import Output, Outputs

__all__ = ["Coarse", "parse_coarse"]

Through = Literal["classes", "head", "both"]
_SMALL = 1e-6


class Coarse(Unbound):
    """The coarse class is known: the fine class is one of its labels.

    Args:
        classes: The coarse class of every image ("dog"), or one per image, `None` where
            it isn't known. Instead of a name a tuple of names: one of those.
        hierarchy: `{coarse class: its fine labels}`. By default the output's own
            (`Output.hierarchy`), else WordNet's, for models with ImageNet's labels.
        through: Which of the model's predictions should agree: `"classes"`, the fine
            classes (loss = -log of the sum of their probabilities in the set, in nats);
            `"head"`, an output of the model whose labels are the coarse classes (loss =
            its cross-entropy, as in the paper); or `"both"`.
        confidence: How far to trust it, in [0, 1]: multiplies the loss, and the clamp
            moves that share of the way.
        output: Which output has the fine classes; needed only where it isn't clear.

    Raises:
        EvidenceError: When bound: an unknown class, a wrong number of images, no output
            that fits.

    Example:
        >>> Coarse("dog")
        Coarse('dog')
    """

    def __init__(
        self,
        classes: str | Sequence[str | tuple[str, ...] | None],
        *,
        hierarchy: Groups | None = None,
        through: Through = "classes",
        confidence: float = 1.0,
        output: str | None = None,
    ) -> None:
        if not isinstance(classes, str) and not isinstance(classes, Sequence):
            raise EvidenceError(f"Coarse takes a name or a list of names, not {classes!r}.")
        if through not in get_args(Through):
            raise EvidenceError(f"through={through!r} is not possible: {get_args(Through)} are.")
        if not isinstance(confidence, (int, float)) or not 0 <= confidence <= 1:
            raise EvidenceError(f"confidence={confidence!r} must be a number from 0 to 1.")
        self.classes, self.hierarchy = classes, hierarchy
        self.through: Through = through
        self.confidence, self.output = float(confidence), output

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Look the classes up and make masks. See `Evidence.bind`."""
        each = [self.classes] * batch if isinstance(self.classes, str) else list(self.classes)
        if len(each) != batch:
            raise EvidenceError(
                f"Coarse classes are given for {len(each)} images, but the batch has {batch}. "
                "Give one per image (None where it isn't known), or one name for all."
            )
        named = [(c,) if isinstance(c, str) else tuple(c or ()) for c in each]
        known = list(dict.fromkeys(name for names in named for name in names))
        heads = _heads(specs, known)
        masks: dict[str, Tensor] = {}
        if self.through != "head":
            fine = self._fine(specs, heads)
            spec = specs[fine]
            members = {
                name: members_of(name, spec.labels, self.hierarchy or spec.hierarchy)
                for name in known
            }
            masks[fine] = _mask(named, members, len(spec.labels))
        if self.through != "classes":
            if not heads:
                raise EvidenceError(
                    f"through={self.through!r} needs an output whose labels are the coarse classes "
                    f"({', '.join(known[:3])}); this model has {list(specs)}. Use 'classes'."
                )
            labels = specs[heads[0]].labels
            members = {name: [labels.index(name)] for name in known}
            masks[heads[0]] = _mask(named, members, len(labels))
        return _Sets(masks, torch.full((batch,), self.confidence))

    def _fine(self, specs: Mapping[str, Output], heads: list[str]) -> str:
        if self.output is not None:
            if self.output not in specs:
                raise EvidenceError(
                    f"There is no output {self.output!r}. {did_you_mean(self.output, specs)}"
                )
            if specs[self.output].kind != "multiclass":
                raise EvidenceError(f"Output {self.output!r} isn't multiclass: Coarse needs one.")
            return self.output
        fits = [n for n, s in specs.items() if s.kind == "multiclass" and n not in heads]
        fits = [n for n in fits if specs[n].hierarchy is not None] or fits
        if len(fits) != 1:
            raise ModelError(
                f"Coarse needs one multiclass output with the fine classes; {fits or 'none'} of "
                f"{list(specs)} could be. Say which with Coarse(..., output=NAME)."
            )
        return fits[0]

    def take(self, rows: Tensor) -> Coarse:
        """See `Evidence.take`."""
        classes = self.classes
        if not isinstance(classes, str):
            classes = [classes[i] for i in rows.tolist()]
        return Coarse(
            classes, hierarchy=self.hierarchy, through=self.through,
            confidence=self.confidence, output=self.output,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Coarse({self.classes!r})"


class _Sets(Evidence):
    """The class of an output lies in a set: `{output: (batch, labels) bool}`."""

    def __init__(self, masks: dict[str, Tensor], confidence: Tensor) -> None:
        self.masks, self.confidence = masks, confidence

    def loss(self, outputs: Outputs) -> Tensor:
        total: list[Tensor] = []
        for name, mask in self.masks.items():
            logits = outputs[name]
            inside = logits.masked_fill(~mask.to(logits.device), -torch.inf).logsumexp(1)
            total.append(logits.logsumexp(1) - inside)
        return torch.stack(total).sum(0) * self.confidence.to(total[0])

    def clamp(self, outputs: Outputs) -> Outputs:
        new: dict[str, Tensor] = {}
        for name, mask in self.masks.items():
            logits = outputs[name]
            log_p = logits.log_softmax(1)
            inside = log_p.masked_fill(~mask.to(logits.device), -torch.inf).log_softmax(1)
            share = self.confidence.to(logits).unsqueeze(1)
            mixed = share * inside.exp() + (1 - share) * log_p.exp()
            new[name] = mixed.clamp(min=_SMALL / logits.shape[1]).log()
            told = ~mask.all(1, keepdim=True).to(logits.device)
            new[name] = torch.where(told, new[name], logits)
        return outputs.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """What lies outside the set is known not to hold; if one label is left, that too."""
        known: dict[str, Tensor] = {}
        for name, mask in self.masks.items():
            mask = mask.to(outputs[name].device)
            known[name] = ~mask | (mask.sum(1, keepdim=True) == 1)
        return known

    def take(self, rows: Tensor) -> _Sets:
        masks = {name: mask[rows.to(mask.device)] for name, mask in self.masks.items()}
        return _Sets(masks, self.confidence[rows.to(self.confidence.device)])


def parse_coarse(text: str) -> Coarse:
    """Make evidence of a coarse class on the command line: `dog`, or `dog|cat` for either."""
    return Coarse([tuple(name.strip() for name in text.split("|"))])


def _heads(specs: Mapping[str, Output], names: Sequence[str]) -> list[str]:
    """Outputs whose labels are coarse classes, all of those named among them."""
    return [
        name
        for name, spec in specs.items()
        if spec.kind == "multiclass" and names and all(label in spec.labels for label in names)
    ]


def _mask(
    named: Sequence[tuple[str, ...]], members: Mapping[str, list[int]], labels: int
) -> Tensor:
    mask = torch.zeros(len(named), labels, dtype=torch.bool)
    for row, names in enumerate(named):
        if not names:  # nothing is known: every class is possible
            mask[row] = True
        for name in names:
            mask[row, members[name]] = True
    return mask
