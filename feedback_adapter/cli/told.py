"""What a line says of an image: its cells as words, and the words of many images as evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feedback_adapter.errors import EvidenceError

if TYPE_CHECKING:
    from feedback_adapter.evidence.base import Evidence

__all__ = [
    "ABSENT",
    "COARSE",
    "IMAGE_COLUMNS",
    "PRESENT",
    "RESERVED",
    "TEXT",
    "UNCERTAIN",
    "Told",
    "evidence_of",
    "image_column",
    "told",
    "words",
]

IMAGE_COLUMNS = ("file_name", "file", "image", "path", "filename", "imageid", "image_id", "id")
"""Columns that may name the images, whatever their case; the first of them that is there does."""

PRESENT = ("know", "labels", "present")
ABSENT = ("know_not", "absent")
COARSE, TEXT = "know_coarse", "text"
RESERVED = (*PRESENT, *ABSENT, COARSE, TEXT, "name")
"""Columns that aren't labels: lists of labels that are there and that aren't, a coarse class, a
text, and what the photo is called elsewhere."""

UNCERTAIN = 0.5
"""The confidence of a label that is told as uncertain, -1."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What is known of one image.

    Args:
        labels: `{label: value}`, values in [0, 1].
        uncertain: Labels that are said to be there without being certain.
        coarse: Coarse classes of which the class is one.
        text: A text; empty if there is none.
    """

    labels: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    uncertain: tuple[str, ...] = ()
    coarse: tuple[str, ...] = ()
    text: str = ""


def image_column(columns: Iterable[str]) -> str | None:
    """Which column names the images; `None` if none does."""
    by_name = {name.lower(): name for name in reversed(list(columns))}
    return next((by_name[name] for name in IMAGE_COLUMNS if name in by_name), None)


def told(cells: Mapping[str, Any], ignored: Iterable[str] = ()) -> Told:
    """Read the cells of a line.

    Args:
        cells: By column. A column with the name of a label holds 1 (there), 0 (not there), a
            number between them, nothing (unknown) or -1 (uncertain); see also `RESERVED`.
        ignored: Names that aren't the model's, to be left out.

    Raises:
        EvidenceError: A cell is something else, or two cells contradict each other.
    """
    leave, labels, uncertain = set(ignored), dict[str, float](), list[str]()

    def say(label: str, value: float) -> None:
        if label not in leave and labels.setdefault(label, value) != value:
            raise EvidenceError(f"{label!r} is said to be there and not to be there.")

    for columns, value in ((PRESENT, 1.0), (ABSENT, 0.0)):
        for label in (word for column in columns for word in words(cells.get(column), column)):
            say(label, value)
    for label, cell in cells.items():
        if label in RESERVED or label in leave:
            continue
        number = _number(cell, label)
        if number == -1:
            uncertain.append(label)
        elif number is not None:
            say(label, number)
    coarse = words(cells.get(COARSE), COARSE, "|")
    text = cells.get(TEXT)
    return Told(labels, tuple(uncertain), tuple(coarse), "" if text is None else str(text).strip())


def words(cell: Any, column: str, between: str = ";") -> list[str]:
    """The words of a cell that holds a list, or a text with semicolons.

    Raises:
        EvidenceError: It holds something else.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return []
    if isinstance(cell, str):
        cell = cell.split(between)
    if not isinstance(cell, Sequence) or not all(isinstance(word, str) for word in cell):
        raise EvidenceError(
            f"The column {column!r} is {cell!r:.80}: it must hold names, as a list or with "
            f"{between!r} between them."
        )
    return [word.strip() for word in cell if word.strip()]


def _number(cell: Any, column: str) -> float | None:
    """1, 0, between them, -1, or nothing."""
    if isinstance(cell, str):
        cell = {"": None, "true": 1.0, "false": 0.0}.get(cell.strip().lower(), cell)
    if cell is None:
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.inf
    if math.isnan(value):
        return None
    if not (0 <= value <= 1 or value == -1):
        raise EvidenceError(
            f"The column {column!r} is {cell!r:.80}: it must be 1 (there), 0 (not there), a number "
            "between them, -1 (uncertain), or empty where it isn't known. Words go into the "
            f"columns {PRESENT[0]!r}, {ABSENT[0]!r}, {COARSE!r} and {TEXT!r}."
        )
    return value


def evidence_of(images: Sequence[Told]) -> Evidence:
    """What is known of each image of a batch, as evidence."""
    from feedback_adapter.evidence import All, Coarse, Labels, Text

    parts: list[Evidence] = []
    if any(one.uncertain for one in images):
        maybe = [dict.fromkeys(one.uncertain, 1.0) for one in images]
        parts.append(Labels(maybe, confidence=UNCERTAIN))
    if any(one.coarse for one in images):
        parts.append(Coarse([one.coarse or None for one in images]))
    if any(one.text for one in images):
        parts.append(Text([one.text or None for one in images]))
    if any(one.labels for one in images) or not parts:
        parts.insert(0, Labels([one.labels for one in images]))
    return parts[0] if len(parts) == 1 else All(parts)
