"""Labels as evidence: some variables are known to hold, or not to, per image.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, sections 3.1 and 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError, did_you_mean
from feedback_adapter.evidence.base import Evidence, Unbound
from feedback_adapter.evidence.bound import BoundLabels
from feedback_adapter.evidence.doubtful import DoubtfulLabels
from feedback_adapter.evidence.mistakes import CERTAIN, Wrong
from feedback_adapter.outputs import Output

__all__ = ["Labels", "parse_labels"]


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
        wrong: How often such labels are told wrong: 0, never, for what you know; a share below
            1, or `Wrong(missed, invented)`, which `estimate_wrong` finds; `None` to estimate it
            for each image by itself. Then a label that is told counts as far as the model finds
            it likely, and `Refinement.doubted` lists those that it believes to be wrong. Only
            values of 0 and 1 can be wrong, and only in multilabel outputs.
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
        wrong: float | Wrong | None = 0.0,
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
        self.wrong = Wrong.of(wrong)
        self.output = output

    @classmethod
    def from_tensors(
        cls,
        targets: Tensor,
        known: Tensor,
        output: str | None = None,
        *,
        wrong: float | Wrong | None = 0.0,
    ) -> Evidence:
        """Labels of every variable of an output at once.

        Args:
            targets: (batch, labels), values in [0, 1]; what is not known is ignored.
            known: (batch, labels) or (labels,) bool.
            output: Which output; needed only where there are several.
            wrong: As for `Labels`. Where labels come from a file or a crowd, pass `None`.
        """
        return _TensorLabels(targets, known, output, Wrong.of(wrong))

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
        return _bound(target, weight, self.wrong).check(specs)

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
        return Labels(values, confidence=self.confidence, wrong=self.wrong, output=self.output)

    def __repr__(self) -> str:
        rest = "" if self.confidence == 1.0 else f", confidence={self.confidence}"
        rest += "" if self.wrong == CERTAIN else f", wrong={self.wrong}"
        return f"Labels({self.values}{rest})"


class _TensorLabels(Unbound):
    """Labels of every variable of one output, as tensors that aren't checked by name."""

    def __init__(
        self, targets: Tensor, known: Tensor, output: str | None, wrong: Wrong | None
    ) -> None:
        known = known.expand_as(targets).bool()
        targets = torch.where(known, targets.to(torch.get_default_dtype()), 0.0)
        if not bool(((targets >= 0) & (targets <= 1)).all()):  # NaN fails both
            bad = (~((targets >= 0) & (targets <= 1))).nonzero()[0].tolist()
            raise EvidenceError(
                f"The value of label {bad[1]} of image {bad[0]} is "
                f"{float(targets[bad[0], bad[1]])}: it must be in [0, 1]."
            )
        self.targets, self.mask, self.output, self.wrong = targets, known, output, wrong

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
        weight = self.mask.to(self.targets.dtype)
        return _bound({name: self.targets}, {name: weight}, self.wrong).check(specs)

    def take(self, rows: Tensor) -> Evidence:
        return _TensorLabels(self.targets[rows], self.mask[rows], self.output, self.wrong)


def _bound(
    target: dict[str, Tensor], weight: dict[str, Tensor], wrong: Wrong | None
) -> BoundLabels:
    if wrong == CERTAIN:
        return BoundLabels(target, weight)
    return DoubtfulLabels(target, weight, wrong)


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
