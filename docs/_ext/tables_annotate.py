"""Tables of the annotation page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from markdown_tables import table

RESULTS = Path(__file__).parents[2] / "plugins" / "feedback-adapter-annotate" / "results"


def clicks() -> str:
    """From an answer to what the page shows next, in milliseconds."""
    found = json.loads((RESULTS / "clicks.json").read_text("utf-8"))
    rows = [
        [row["checkpoint"], *(f"{row[key]:.0f}" for key in ("median", "p90", "most"))]
        for row in found["rows"]
    ]
    heads = ["checkpoint", f"median of {found['clicks']}, ms", "9 of 10 below", "all below"]
    return table(heads, rows)


TABLES: dict[str, Callable[..., str]] = {"clicks": clicks}
