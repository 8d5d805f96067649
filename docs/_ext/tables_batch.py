"""The table of what `feedback-adapter batch` costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from markdown_tables import table

RESULTS = (
    Path(__file__).parents[2]
    / "plugins" / "feedback-adapter-batch" / "results" / "throughput.json"
)  # fmt: skip


def throughput() -> str:
    """Images per second against a plain loop, and what a million images cost."""
    measured = json.loads(RESULTS.read_text("utf-8"))
    rows = [
        [
            f"{cell['pivot']}, {cell['steps']} steps",
            f"{cell['images_per_second']['batch']:.1f}",
            f"{cell['ratio_to_loop']:.2f}",
            f"{cell['ratio_to_loader']:.2f}",
            f"{cell['ratio_cpu']:.2f}",
            f"{cell['core_hours_per_million']:.0f}",
        ]
        for cell in measured["cells"]
    ]
    heads = [
        "pivot", "images per second", "speed / loop", "speed / loop with a DataLoader",
        "CPU time, loop / command", "core-hours per million images",
    ]  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    said = f"{measured['checkpoint']} on {measured['machine']}, with {versions}."
    return f"{table(heads, rows)}\n\n{said}"


TABLES: dict[str, Callable[..., str]] = {"batch-throughput": throughput}
