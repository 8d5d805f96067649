"""Labels as evidence: some variables are known to hold, or not to, per image.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, sections 3.1 and 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.errors import EvidenceError, did_you_mean
from feedback_adapter.evidence.base import Evidence, Unbound
from feedback_adapter.outputs import Output, Outputs

__all__ = ["Labels", "parse_labels"]

_LIMIT = 1 - 1e-6
"""How certain a clamped posterior can be at most. The limit keeps its logits finite."""


class Labels(Unbound):
    """Some labels are known: present, absent, or present with a probability.

    Args:
        values: `{label: value}` for every image of the batch, or one such mapping per
            image (`None` or `{}`: nothing is known of that image). A value is 1 or `True`
            (present), 0 or `False` (absent), or a soft target in [0, 1]; or a sequence
            of such values, one per image, with `None` where it is not known.
        confidence: How far to trust an item, in [0, 1]: its loss is multiplied by it, and
            the clamp moves that share of the way. One number for all, or
            `{label: number}` (labels that aren't named have confidence 1).
        output: Which output the labels belong to; needed only where several outputs have
            a label of that name.

    The loss of an item is -[v log p + (1 - v) log(1 - p)] in nats, where p is the model's
    probability that the label holds: the sigmoid, or the softmax's share of a multiclass
    output (for v = 1 that is the cross-entropy).

    Raises:
        EvidenceError: A value or confidence isn't in [0, 1] or is NaN; when bound: an
            unknown name, a wrong number of images, or a contradiction.

    Example:
        >>> Labels({"dog": 1, "snow": 0})
        Labels({'dog': 1.0, 'snow': 0.0})
    """

    def __init__(
        self,
        values: Mapping[str, Any] | Sequence[Mapping[str, Any] | None],
        *,
        confidence: float | Mapping[str, float] = 1.0,
        output: str | None = None,
    ) -> None:
        self.values: dict[str, Any] | list[dict[str, Any]]
        if isinstance(values, Mapping):
            self.values = {str(name): _plain(value) for name, value in values.items()}
        elif isinstance(values, Sequence) and not isinstance(values, str):
            self.values = [{str(n): _plain(v) for n, v in (row or {}).items()} for row in values]
        else:
            raise EvidenceError(
                f"Labels takes {{label: value}} or a list of them, not {type(values).__name__}. "
                "To know that a dog is there: Labels({'dog': 1})."
            )
        for row in self.values if isinstance(self.values, list) else [self.values]:
            for name, value in row.items():
                for item in value if isinstance(value, list) else [value]:
                    _in_unit(item, f"The value of {name!r}", optional=True)
        self.confidence = confidence
        items = confidence.items() if isinstance(confidence, Mapping) else [("all", confidence)]
        for name, item in items:
            _in_unit(item, f"The confidence of {name!r}")
        self.output = output

    @classmethod
    def from_tensors(cls, targets: Tensor, known: Tensor, output: str | None = None) -> Evidence:
        """Labels of every variable of an output at once.

        Args:
            targets: (batch, labels), values in [0, 1]; what is not known is ignored.
            known: (batch, labels) or (labels,) bool.
            output: Which output; needed only where there are several.
        """
        return _TensorLabels(targets, known, output)

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Look the names up and make tensors. See `Evidence.bind`."""
        rows = self.values
        if isinstance(rows, list):
            if len(rows) != batch:
                raise EvidenceError(
                    f"Labels are given for {len(rows)} images, but the batch has {batch}. "
                    "Give one mapping per image ({} where nothing is known), or one for all."
                )
        else:
            rows = [_row(rows, index, batch) for index in range(batch)]
        specs = {name: spec for name, spec in specs.items() if spec.kind != "tokens"}
        target = {name: torch.zeros(batch, len(spec.labels)) for name, spec in specs.items()}
        weight = {name: torch.zeros(batch, len(spec.labels)) for name, spec in specs.items()}
        places = {label: self._find(label, specs) for row in rows for label in row}
        for index, row in enumerate(rows):
            for label, value in row.items():
                if value is None:
                    continue
                name, column = places[label]
                target[name][index, column] = value
                weight[name][index, column] = self._confidence(label)
        if isinstance(self.confidence, Mapping):
            for label in self.confidence:
                self._find(label, specs)
        return _Bound(target, weight).check(specs)

    def _find(self, label: str, specs: Mapping[str, Output]) -> tuple[str, int]:
        if self.output is not None and self.output not in specs:
            raise EvidenceError(
                f"There is no output {self.output!r}. {did_you_mean(self.output, specs)}"
            )
        names = [self.output] if self.output is not None else list(specs)
        found = [name for name in names if label in specs[name].labels]
        if not found:
            labels = [known for name in names for known in specs[name].labels]
            raise EvidenceError(f"The model has no label {label!r}. {did_you_mean(label, labels)}")
        if len(found) > 1:
            raise EvidenceError(
                f"{label!r} is a label of several outputs: {found}. Say which: "
                f"Labels({{{label!r}: ...}}, output={found[0]!r})."
            )
        return found[0], specs[found[0]].labels.index(label)

    def _confidence(self, label: str) -> float:
        if isinstance(self.confidence, Mapping):
            return float(self.confidence.get(label, 1.0))
        return float(self.confidence)

    def take(self, rows: Tensor) -> Labels:
        """See `Evidence.take`. Only evidence given per image changes."""
        chosen = rows.tolist()

        def pick(value: Any) -> Any:
            return [value[i] for i in chosen] if isinstance(value, list) else value

        if isinstance(self.values, list):
            values: Any = pick(self.values)
        else:
            values = {name: pick(value) for name, value in self.values.items()}
        return Labels(values, confidence=self.confidence, output=self.output)

    def __repr__(self) -> str:
        rest = "" if self.confidence == 1.0 else f", confidence={self.confidence}"
        return f"Labels({self.values}{rest})"


class _Bound(Evidence):
    """Labels as tensors: per output the target and the weight of each variable."""

    def __init__(self, target: dict[str, Tensor], weight: dict[str, Tensor]) -> None:
        self.target, self.weight = _ordinary(target), _ordinary(weight)
        self.specs: Mapping[str, Output] = {}
        # Only outputs of which something is known are in the loss: a pivot that reaches others
        # alone is a mistake that should be found. If nothing is known at all, all are (with 0).
        some = [name for name, w in self.weight.items() if bool((w > 0).any())]
        self.stated = some or list(self.weight)

    def conflict(self, other: Evidence) -> str | None:
        if not isinstance(other, _Bound):
            return None
        for name in self.target.keys() & other.target.keys():
            both = (self.weight[name] > 0) & (other.weight[name] > 0)
            apart = both & ((self.target[name] - other.target[name]).abs() == 1)
            for image, column in apart.nonzero().tolist()[:1]:
                label = self.specs[name].labels[column]
                return f"{label!r} is said to be both present and absent in image {image}."
            if self.specs[name].kind == "multiclass":
                target = torch.where(other.weight[name] > 0, other.target[name], self.target[name])
                weight = torch.maximum(self.weight[name], other.weight[name])
                why = _impossible(name, self.specs[name], target, weight)
                if why:
                    return why
        return None

    def check(self, specs: Mapping[str, Output]) -> _Bound:
        self.specs = specs
        for name, spec in specs.items():
            if spec.kind != "multiclass" or name not in self.target:
                continue
            why = _impossible(name, spec, self.target[name], self.weight[name])
            if why:
                raise EvidenceError(f"Contradiction: {why}")
        return self

    def _on(self, like: Tensor, name: str) -> tuple[Tensor, Tensor]:
        target, weight = self.target[name], self.weight[name]
        if target.device != like.device or target.dtype != like.dtype:
            target, weight = target.to(like), weight.to(like)
            self.target[name], self.weight[name] = target, weight
        return target, weight

    def loss(self, outputs: Outputs) -> Tensor:
        total: Tensor | None = None
        for name in self.stated:
            logits = outputs[name]
            target, weight = self._on(logits, name)
            if outputs.specs[name].kind == "multilabel":
                items = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            else:
                log_p = logits.log_softmax(1)
                # log(1 - p), safe where p is 1 in floating point
                log_q = torch.log1p(-log_p.exp().clamp(max=_LIMIT))
                items = -(target * log_p + (1 - target) * log_q)
                certain = target == 1
                items = torch.where(certain, -log_p, items)
            part = (items * weight).sum(1)
            total = part if total is None else total + part
        assert total is not None, "a model has at least one output"
        return total

    def clamp(self, outputs: Outputs) -> Outputs:
        new: dict[str, Tensor] = {}
        for name in self.target:
            logits, spec = outputs[name], outputs.specs[name]
            target, weight = self._on(logits, name)
            if not bool((weight > 0).any()):
                continue
            p = spec.probabilities(logits)
            mixed = torch.lerp(p, target, weight)
            if spec.kind == "multilabel":
                fixed = mixed.clamp(1 - _LIMIT, _LIMIT).logit()
                new[name] = torch.where(weight > 0, fixed, logits)
            else:
                known = weight > 0
                # of the unknown classes among themselves, however unlikely they are together
                free = logits.masked_fill(known, torch.finfo(logits.dtype).min).log_softmax(1)
                rest = 1 - torch.where(known, mixed, 0.0).sum(1, keepdim=True)
                fixed = mixed.clamp(min=1 - _LIMIT).log()
                posterior = torch.where(known, fixed, free + rest.clamp(min=1 - _LIMIT).log())
                some = known.any(1, keepdim=True)
                new[name] = torch.where(some, posterior.log_softmax(1), logits)
        return outputs.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        return {name: self._on(outputs[name], name)[1] > 0 for name in self.target}

    def take(self, rows: Tensor) -> _Bound:
        def chosen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor[rows.to(tensor.device)] for name, tensor in tensors.items()}

        return _Bound(chosen(self.target), chosen(self.weight))


def _ordinary(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of what was made under inference_mode, which autograd refuses."""
    return {name: t.clone() if t.is_inference() else t for name, t in tensors.items()}


def _impossible(name: str, spec: Output, target: Tensor, weight: Tensor) -> str | None:
    """Why no probabilities of classes that exclude each other are like this, if so."""
    total = (target * (weight > 0)).sum(1)
    ruled_out = ((target == 0) & (weight == 1)).all(1)
    for index in ((total > 1 + 1e-6) | ruled_out).nonzero().flatten().tolist():
        said = {
            spec.labels[i]: float(target[index, i])
            for i in weight[index].nonzero().flatten().tolist()[:5]
        }
        return (
            f"in image {index} the classes of {name!r} exclude each other, so their probabilities "
            f"can't be {said}. At most one can be 1, one must be."
        )
    return None


class _TensorLabels(Unbound):
    """Labels of every variable of one output, as tensors that aren't checked by name."""

    def __init__(self, targets: Tensor, known: Tensor, output: str | None) -> None:
        known = known.expand_as(targets).bool()
        targets = torch.where(known, targets.to(torch.get_default_dtype()), 0.0)
        if not bool(((targets >= 0) & (targets <= 1)).all()):  # NaN fails both
            bad = (~((targets >= 0) & (targets <= 1))).nonzero()[0].tolist()
            raise EvidenceError(
                f"The value of label {bad[1]} of image {bad[0]} is "
                f"{float(targets[bad[0], bad[1]])}: it must be in [0, 1]."
            )
        self.targets, self.mask, self.output = targets, known, output

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        name = self.output if self.output is not None else next(iter(specs))
        if name not in specs or (self.output is None and len(specs) > 1):
            raise EvidenceError(
                f"Say which output the labels belong to: output= one of {list(specs)}."
            )
        expected = (batch, len(specs[name].labels))
        if tuple(self.targets.shape) != expected:
            raise EvidenceError(
                f"targets is {tuple(self.targets.shape)}, but the batch and the labels of {name!r} "
                f"make {expected}."
            )
        return _Bound({name: self.targets}, {name: self.mask.to(self.targets.dtype)}).check(specs)

    def take(self, rows: Tensor) -> Evidence:
        return _TensorLabels(self.targets[rows], self.mask[rows], self.output)


def parse_labels(text: str) -> Labels:
    """Labels from the command line: `dog,-snow,beach=0.8` (minus: known to be absent)."""
    values: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = item.partition("=")
        value = 0.0 if name.startswith("-") else 1.0
        if number:
            try:
                value = float(number)
            except ValueError:
                raise EvidenceError(f"{number!r} in {item!r} isn't a number in [0, 1].") from None
        name = name.removeprefix("-")
        if values.setdefault(name, value) != value:
            raise EvidenceError(
                f"Contradiction: {name!r} is said to be both {values[name]} and {value}."
            )
    return Labels(values)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[Any]", value)]
    return float(value) if isinstance(value, (bool, int)) else value


def _row(values: dict[str, Any], index: int, batch: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list):
            items = cast("list[Any]", value)
            if len(items) != batch:
                raise EvidenceError(
                    f"{name!r} has {len(items)} values, but the batch has {batch} images. "
                    "Give one value per image (None where it is not known), or one for all."
                )
            row[name] = items[index]
        else:
            row[name] = value
    return row


def _in_unit(value: Any, what: str, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= 1:
        raise EvidenceError(
            f"{what} is {value!r}: it must be a number from 0 (absent) to 1 (present)."
        )
