"""Labels as evidence: some variables are known to hold, or not to, per image.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, sections 3.1 and 4.1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import All, Evidence, Unbound
from feedback_adapter.evidence.bound import BoundLabels
from feedback_adapter.evidence.certain import consistent
from feedback_adapter.evidence.doubtful import DoubtfulLabels
from feedback_adapter.evidence.given import as_tensor, output_of, per_image, plain, repeated, unit
from feedback_adapter.evidence.mistakes import CERTAIN, Wrong
from feedback_adapter.evidence.somewhere import Somewhere
from feedback_adapter.names import find, place
from feedback_adapter.outputs import Output
from feedback_adapter.rows import indices

__all__ = ["Labels", "parse_labels"]


class Labels(Unbound):
    """Some labels are known: present, absent, or present with a probability.

    Args:
        values: `{label: value}` for every image of the batch, or one such mapping per
            image (`None` or `{}`: nothing is known of that image). A value is 1 or `True`
            (present), 0 or `False` (absent), or a soft target in [0, 1]; or a sequence
            of such values, one per image, with `None` where it is not known. In arrays,
            tensors and columns of tables NaN means that, too. Labels are found without case,
            with `_` or `-` for spaces, and in the plural.
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
    output (for v = 1 that is the cross-entropy). A label of a map is present if it is at one of
    its pixels or more, and p is the noisy-or 1 - prod(1 - p_pixel).

    Raises:
        EvidenceError: A value or confidence isn't in [0, 1] or is NaN; when bound: an
            unknown name, a wrong number of images, or a contradiction.

    Example:
        >>> Labels({"dog": 1, "snow": 0})
        Labels({'dog': 1.0, 'snow': 0.0})
    """

    said = "values"

    def __init__(
        self,
        values: Mapping[str, Any] | Sequence[Mapping[str, Any] | None],
        *,
        confidence: float | Mapping[str, float] = 1.0,
        wrong: float | Wrong | None = 0.0,
        output: str | None = None,
    ) -> None:
        if isinstance(values, Mapping):
            self.values: Any = _checked(values, "The", lists=True)
        else:
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise EvidenceError(
                    "Labels takes {label: value} or a list of them, not "
                    f"{type(values).__name__}. To know that a dog is there: Labels({{'dog': 1}})."
                )
            rows = per_image(
                values, "What is known", "{label: value}", lambda row: isinstance(row, Mapping)
            )
            self.values = [_checked(row or {}, f"In image {i} the") for i, row in enumerate(rows)]
        self.confidence: float | dict[str, float] = (
            {str(n): unit(v, f"The confidence of {n!r}") for n, v in confidence.items()}
            if isinstance(confidence, Mapping)
            else unit(confidence, "The confidence of 'all'")
        )
        self.wrong = Wrong.of(wrong)
        self.output = output

    @classmethod
    def from_tensors(
        cls,
        targets: Tensor | Sequence[Sequence[float]],
        known: Tensor | Sequence[Any] | None = None,
        output: str | None = None,
        *,
        wrong: float | Wrong | None = 0.0,
    ) -> Evidence:
        """Labels of every variable of an output at once.

        Args:
            targets: (batch, labels), values in [0, 1], as a tensor, an array or lists; what is
                not known is ignored.
            known: (batch, labels) or (labels,) bool; by default what isn't NaN.
            output: Which output; needed only where there are several.
            wrong: As for `Labels`. Where labels come from a file or a crowd, pass `None`.
        """
        return _TensorLabels(targets, known, output, Wrong.of(wrong))

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Look the names up and make tensors. See `Evidence.bind`."""
        specs = {name: spec for name, spec in specs.items() if spec.kind != "tokens"}
        if self.output is not None:
            name = output_of(specs, self.output, list(specs), "Labels", "one of labels")
            specs = {name: specs[name]}
        # on the CPU, whatever the user's default device is
        target, weight = (
            {n: torch.zeros(batch, len(s.labels), device="cpu") for n, s in specs.items()}
            for _ in range(2)
        )
        trust = self.confidence if isinstance(self.confidence, dict) else {}
        rest = 1.0 if isinstance(self.confidence, dict) else self.confidence
        every = _Places(specs)
        shares = {every.of(label): share for label, share in trust.items()}
        rows = repeated(self.values, batch, "Labels")
        places = {label: every.of(label) for label in dict.fromkeys(n for row in rows for n in row)}
        for image, row in enumerate(rows):
            said: dict[tuple[str, int], float] = {}
            for label, value in row.items():
                if isinstance(value, list):
                    if len(value) != batch:
                        raise EvidenceError(
                            f"{label!r} has {len(value)} values, but the batch has {batch} images. "
                            "Give one per image (None where it isn't known), or one for all."
                        )
                    value = value[image]
                if value is None:
                    continue
                name, column = place = places[label]
                if said.setdefault(place, value) != value:
                    raise EvidenceError(
                        f"Contradiction: {specs[name].labels[column]!r} is said to be both "
                        f"{said[place]} and {value} in image {image}."
                    )
                target[name][image, column] = value
                weight[name][image, column] = shares.get(place, rest)
        return _bound(target, weight, self.wrong, specs)

    def take(self, rows: Tensor) -> Self:
        """See `Evidence.take`. Only evidence given per image changes."""
        if isinstance(self.values, list):
            return super().take(rows)
        taken = copy.copy(self)
        taken.values = {
            name: [value[i] for i in indices(rows, len(value)).tolist()]
            if isinstance(value, list)
            else value
            for name, value in self.values.items()
        }
        return taken

    def items(self, specs: Mapping[str, Output]) -> list[str]:
        """Each label that is told. See `Evidence.items`."""
        del specs
        return [_fact(label, value) for label, value in self._told().items()]

    def only(self, facts: Sequence[int], specs: Mapping[str, Output]) -> Self:
        """See `Evidence.only`."""
        del specs
        told = list(self._told().items())
        some = copy.copy(self)
        some.values = dict(told[fact] for fact in facts)
        return some

    def _told(self) -> dict[str, float]:
        """What is told of one image."""
        row = self.values[0] if isinstance(self.values, list) else self.values
        pairs = [(n, v[0] if isinstance(v, list) else v) for n, v in row.items()]
        return {name: value for name, value in pairs if value is not None}

    def __repr__(self) -> str:
        rest = "" if self.confidence == 1.0 else f", confidence={self.confidence}"
        rest += "" if self.wrong == CERTAIN else f", wrong={self.wrong}"
        return f"Labels({self.values}{rest})"


class _TensorLabels(Unbound):
    """Labels of every variable of one output, as tensors that aren't checked by name."""

    def __init__(self, targets: Any, known: Any, output: str | None, wrong: Wrong | None) -> None:
        targets = as_tensor(targets, "targets is {}, which").to(torch.get_default_dtype())
        mask = ~targets.isnan() if known is None else as_tensor(known, "known is {}, which")
        if targets.ndim != 2 or mask.dtype != torch.bool or mask.ndim not in (1, 2):
            raise EvidenceError(
                f"targets must be (batch, labels), and known (batch, labels) or (labels,) of True "
                f"and False; given: {tuple(targets.shape)}, {tuple(mask.shape)} of {mask.dtype}."
            )
        try:
            mask = mask.expand_as(targets)
        except RuntimeError:
            raise EvidenceError(
                f"known is {tuple(mask.shape)}: it doesn't fit targets {tuple(targets.shape)}."
            ) from None
        targets = torch.where(mask, targets, 0.0)
        for image, label in (~((targets >= 0) & (targets <= 1))).nonzero().tolist()[:1]:
            raise EvidenceError(  # NaN fails both
                f"The value of label {label} of image {image} is {float(targets[image, label])}: "
                "it must be in [0, 1]."
            )
        self.targets, self.mask, self.output, self.wrong = targets, mask, output, wrong

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        name = self._name(specs)
        expected = (batch, len(specs[name].labels))
        if tuple(self.targets.shape) != expected:
            raise EvidenceError(
                f"targets is {tuple(self.targets.shape)}, but the batch and the labels of {name!r} "
                f"make {expected}."
            )
        weight = self.mask.to(self.targets.dtype)
        return _bound({name: self.targets}, {name: weight}, self.wrong, {name: specs[name]})

    def take(self, rows: Tensor) -> Self:
        taken, rows = copy.copy(self), indices(rows, len(self.targets))
        taken.targets, taken.mask = self.targets[rows], self.mask[rows]
        return taken

    def items(self, specs: Mapping[str, Output]) -> list[str]:
        labels = specs[self._name(specs)].labels
        return [_fact(labels[i], float(self.targets[0, i])) for i in self._told()]

    def only(self, facts: Sequence[int], specs: Mapping[str, Output]) -> Self:
        del specs
        some, told = copy.copy(self), self._told()
        some.mask = torch.zeros_like(self.mask)
        some.mask[0, [told[fact] for fact in facts]] = True
        return some

    def _told(self) -> list[int]:
        return self.mask[0].nonzero()[:, 0].tolist()

    def _name(self, specs: Mapping[str, Output]) -> str:
        fits = [name for name, spec in specs.items() if spec.kind != "tokens"]
        return output_of(specs, self.output, fits, "Labels.from_tensors", "one of labels")


def _bound(
    target: dict[str, Tensor],
    weight: dict[str, Tensor],
    wrong: Wrong | None,
    specs: Mapping[str, Output],
) -> Evidence:
    """Labels as tensors: those of images, and those of maps, which are somewhere or nowhere."""
    maps = {name for name, spec in specs.items() if spec.kind == "map"}
    told = [name for name in maps if bool((weight[name] > 0).any())]
    if told and wrong is not None and wrong != CERTAIN:
        raise EvidenceError(
            f"wrong={wrong} is for multilabel outputs, but {told[0]!r} is a map: say how far to "
            "trust its labels with confidence=."
        )
    parts: list[Evidence] = []
    rest = [name for name in target if name not in maps]
    if rest:
        own = {name: target[name] for name in rest}, {name: weight[name] for name in rest}
        labels = BoundLabels(*own) if wrong == CERTAIN else DoubtfulLabels(*own, wrong)
        parts.append(labels.check({name: specs[name] for name in rest}))
    if told or not rest:
        chosen = told or sorted(maps)
        somewhere = Somewhere({n: target[n] for n in chosen}, {n: weight[n] for n in chosen})
        consistent(somewhere.certain(), specs)
        parts.append(somewhere)
    return parts[0] if len(parts) == 1 else All(parts)


def parse_labels(text: str) -> Labels:
    """Labels from the command line: `dog,-snow,beach=0.8` (minus: known to be absent)."""
    values: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = item.partition("=")
        value = 0.0 if name.startswith("-") else 1.0
        if equals:
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if not 0 <= value <= 1:
                raise EvidenceError(f"{number!r} in {item!r} isn't a number in [0, 1].")
            if name.startswith("-"):
                raise EvidenceError(f"{item!r} isn't clear: leave out the minus, or the number.")
        name = name.removeprefix("-")
        if values.setdefault(name, value) != value:
            raise EvidenceError(
                f"Contradiction: {name!r} is said to be both {values[name]} and {value}."
            )
    return Labels(values)


def _fact(label: str, value: float) -> str:
    """What is told of a label, in words."""
    return label if value == 1 else f"no {label}" if value == 0 else f"{label}={value:g}"


def _checked(row: Mapping[Any, Any], the: str, *, lists: bool = False) -> dict[str, Any]:
    """`{label: value}` of numbers or `None`, and of lists of them where these are possible."""

    def number(value: Any, name: Any) -> float | None:
        return None if value is None else unit(value, f"{the} value of {name!r}")

    checked: dict[str, Any] = {}
    for name, given in row.items():
        value = plain(given)
        if lists and isinstance(value, Sequence) and not isinstance(value, str):
            checked[str(name)] = [number(item, name) for item in value]
        elif value is None and given is not None:  # a NaN by itself, from an array
            unit(math.nan, f"{the} value of {name!r}")
        else:
            checked[str(name)] = number(value, name)
    return checked


class _Places:
    """Where the labels of all outputs are."""

    def __init__(self, specs: Mapping[str, Output]) -> None:
        self.columns = [(name, i) for name, spec in specs.items() for i in range(len(spec.labels))]
        self.labels = tuple(label for spec in specs.values() for label in spec.labels)

    def of(self, label: str) -> tuple[str, int]:
        """The output and the column of a label."""
        found = list(dict.fromkeys(self.columns[i][0] for i in find(label, self.labels)))
        if len(found) > 1:
            raise EvidenceError(
                f"{label!r} is a label of several outputs: {found}. Say which: "
                f"Labels({{{label!r}: ...}}, output={found[0]!r})."
            )
        return self.columns[place(label, self.labels)]
