"""One answer, as a line of JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from fa_annotate.errors import AnnotateError

__all__ = ["Answer", "Kind", "fault_of", "parsed"]

Kind: TypeAlias = Literal["label", "text", "coarse", "click", "skip", "undo"]
"""What an answer is about."""

_KINDS = get_args(Kind)


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer, as one line of the file holds it.

    Args:
        id: The number of its line, from 1 on.
        time: When it was saved, in UTC, as ISO 8601.
        image: Name of the photo, as its folder has it.
        kind: What it is about.
        name: The label of a `"label"`, `"skip"` or `"click"`; which classes a `"coarse"` is of; of
            an `"undo"`, the name of the answer that it takes back.
        value: 1 (yes), 0 (no) or `None` (not asked, after all) for a label; the text; the coarse
            class or a list of some; where a click is; for an undo the id of the answer that it
            takes back. `None` for a text or a coarse class means that there is none any more.
    """

    id: int
    time: str
    image: str
    kind: Kind
    name: str
    value: Any


_KEYS = {field.name for field in dataclasses.fields(Answer)}


def parsed(line: bytes, number: int, path: Path, live: Mapping[int, Answer]) -> Answer:
    """The answer of a line.

    Raises:
        AnnotateError: It holds none; names the line.
    """
    try:
        said = json.loads(line)
        if not isinstance(said, dict) or set(said) != _KEYS:
            raise ValueError(f"it must be an object with the keys {', '.join(sorted(_KEYS))}")
        answer = Answer(**cast("dict[str, Any]", said))
        fault = fault_of(answer, live)
        if answer.id != number:
            fault = f"its id is {answer.id!r}, but it is line {number}."
    except (ValueError, TypeError, RecursionError) as error:
        fault, answer = f"{error}.", None
    if fault or answer is None:
        shown = line.decode(errors="replace")
        raise AnnotateError(
            f"Line {number} of {str(path)!r} isn't an answer: {fault} It reads {shown!r:.120}. "
            "Mend the line; or move it and those after it to another file."
        )
    return answer


def fault_of(answer: Answer, live: Mapping[int, Answer]) -> str:
    """What is wrong with an answer, as a sentence; empty if nothing is."""
    kind, value = answer.kind, answer.value
    texts = (answer.time, answer.image, answer.kind, answer.name)
    if type(answer.id) is not int or not all(isinstance(text, str) for text in texts):
        return "id must be a whole number; time, image, kind and name must be texts."
    if not answer.image or kind not in _KINDS:
        return f"image can't be empty, and kind is {kind!r}: it must be one of {_KINDS}."
    if kind in ("label", "skip") and not answer.name:
        return f"a {kind} needs the label's name."
    if kind == "label" and value is not None and (type(value) is not int or value not in (0, 1)):
        return f"value of the label {answer.name!r} is {value!r:.80}: it must be 1, 0 or None."
    if kind == "text" and not (value is None or isinstance(value, str)):
        return f"value is {value!r:.80}: it must be a text or None."
    if kind == "coarse" and not (value is None or isinstance(value, str) or _texts(value)):
        return f"value is {value!r:.80}: it must be a class, a list of classes, or None."
    if kind == "click" and not _is_click(value):
        return f"value is {value!r:.80}: a click is [x, y, 1 or 0] in pixels of the photo."
    if kind == "undo" and (type(value) is not int or value not in live):
        return f"it takes back answer {value!r:.80}, which there isn't (any more)."
    if not _is_json(value):
        return f"value is {value!r:.80}, which JSON can't hold."
    return ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in cast("list[Any]", value))


def _is_click(value: Any) -> bool:
    """Whether it says where, and whether the label is there: x, y, 1 or 0."""
    if not isinstance(value, list) or len(cast("list[Any]", value)) != 3 or value[2] not in (0, 1):
        return False
    return all(type(v) in (int, float) and math.isfinite(v) for v in cast("list[Any]", value))


def _is_json(value: Any) -> bool:
    """Whether it comes back the same from JSON: no tuples, NaN or keys that aren't texts."""
    if isinstance(value, dict):
        return all(
            isinstance(k, str) and _is_json(v) for k, v in cast("dict[Any, Any]", value).items()
        )
    if isinstance(value, list):
        return all(map(_is_json, cast("list[Any]", value)))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))
