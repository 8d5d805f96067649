"""Ways of measuring what evidence is worth: one file each.

Each takes a `Request` and gives rows; `feedback-adapter evaluate --protocol NAME` runs it.
"""

from __future__ import annotations

from collections.abc import Callable

from fa_evaluate.protocols import caption, hierarchy, partial_labels, text
from fa_evaluate.request import Request
from fa_evaluate.rows import Row

__all__ = ["PROTOCOLS", "Request", "Row"]

PROTOCOLS: dict[str, Callable[[Request], list[Row]]] = {
    "partial-labels": partial_labels.measure,
    "hierarchy": hierarchy.measure,
    "text": text.measure,
    "caption": caption.measure,
}
"""Protocols by the name that the command line takes."""
