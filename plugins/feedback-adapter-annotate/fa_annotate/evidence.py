"""What was answered of a photo, as evidence for the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fa_annotate.answers import ImageAnswers
from feedback_adapter.evidence import All, Coarse, Evidence, Labels, Pixels, Text
from feedback_adapter.evidence.hierarchy import wordnet
from feedback_adapter.outputs import Output

__all__ = ["Label", "coarse_classes", "evidence_of", "labels_of"]

RADIUS = 0.015
"""How far a click reaches: this share of the photo's longer side."""


@dataclasses.dataclass(frozen=True)
class Label:
    """One label of a model.

    Args:
        name: What answers call it: the label, and where there are several outputs
            `output/label`.
        output: The output's name.
        label: Its name there.
        index: Its place there.
    """

    name: str
    output: str
    label: str
    index: int


def labels_of(outputs: Mapping[str, Output]) -> list[Label]:
    """Every label that can be answered, in the order of the outputs."""
    specs = {name: spec for name, spec in outputs.items() if spec.kind != "tokens"}
    return [
        Label(f"{name}/{label}" if len(specs) > 1 else label, name, label, index)
        for name, spec in specs.items()
        for index, label in enumerate(spec.labels)
    ]


def coarse_classes(outputs: Mapping[str, Output]) -> list[str]:
    """Every coarse class that can be told: of an output's own hierarchy, or above ImageNet's."""
    for spec in outputs.values():
        if spec.hierarchy:
            return list(spec.hierarchy)
        if spec.kind == "multiclass":
            net = wordnet()
            if None not in net.ids_of(spec.labels):
                return sorted({net.names[k][0] for k, below in net.below.items() if len(below) > 1})
    return []


def evidence_of(
    answers: ImageAnswers, labels: Sequence[Label], size: tuple[int, int]
) -> tuple[Evidence | None, list[str]]:
    """What a model can be told.

    Args:
        answers: What was answered of one photo.
        labels: The model's; see `labels_of`.
        size: The photo's height and width, which clicks are made on.

    Returns:
        The evidence, or `None` where nothing was answered; and the answered labels that aren't
        the model's, which it can't be told.
    """
    by_name = {label.name: label for label in labels}
    told: dict[str, dict[str, Any]] = {}
    for name, value in answers.labels.items():
        if name in by_name:
            told.setdefault(by_name[name].output, {})[by_name[name].label] = value
    parts: list[Evidence] = [Labels(values, output=output) for output, values in told.items()]
    if answers.text:
        parts.append(Text(answers.text))
    parts += [Coarse([(c,) if isinstance(c, str) else tuple(c)]) for c in answers.coarse.values()]
    clicks = [
        (*answer.value[:2], by_name[answer.name].label, float(answer.value[2]))
        for answer in answers.clicks
        if answer.name in by_name
    ]
    if clicks:
        parts.append(Pixels(clicks=clicks, radius=RADIUS * max(size), size=size))
    unknown = [name for name in answers.labels if name not in by_name]
    unknown += [answer.name for answer in answers.clicks if answer.name not in by_name]
    if not parts:
        return None, unknown
    return parts[0] if len(parts) == 1 else All(parts), unknown
