"""The tables of the documentation, from the results: one Markdown table per file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import typer
from command import HERE

NAMES = ("triangles", "clicks", "examples", "camvid", "camvid_scratch", "cifar10")

FURTHER = {"triangles": ("limit", "newton"), "clicks": ("limit", "newton")}
"""Results whose methods are further columns of a table."""

METHODS = (
    *("loop", "loop, cut", "loop, shuffled", "feedforward", "untied", "ensemble"),
    *("unet", "unet loop", "published", "loop, all gradients"),
    *("loop, batch norms", "feedforward, batch norms"),
    *("loop, to stride 16", "feedforward, to stride 16"),
    *("loop, newton", "feedforward, newton", "limit"),
)
"""What the documentation shows; the results have more, such as other numbers of looks."""


def main(results: Path = HERE / "results", out: Path = HERE / "docs" / "tables") -> None:
    """Write a Markdown table for every table of results."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts(results).items():
        (out / f"{name}.md").write_text(text)


def texts(results: Path) -> dict[str, str]:
    """The Markdown tables by name, from the folder of the results."""
    found: dict[str, str] = {}
    for name in NAMES:
        rows = [row for row in _read(results, name) if not row["condition"].endswith("validation")]
        conditions = {row["condition"] for row in rows}
        for other in FURTHER.get(name, ()):
            rows += [row for row in _read(results, other) if row["condition"] in conditions]
        found[name] = markdown(rows) + "\n"
    return {**found, "known_pixels": gains(_read(results, "known_pixels")) + "\n"}


def _read(results: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((results / f"{name}.json").read_text())["rows"]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation, seeds in brackets, by condition and method.

    Methods are columns, or rows, if the table is narrower so.
    """
    rows = sorted((row for row in rows if row["method"] in METHODS), key=_numbers)
    first = {row["method"]: row for row in reversed(rows)}  # of the smallest images
    methods = {name: first[name] for name in METHODS if name in first}
    found = {(row["condition"], row["metric"], row["method"]): row for row in rows}
    sizes = [_amount(row["parameters"], 1e3, ".1f", "k") for row in methods.values()]
    costs = [_amount(row["macs"], 1e6, ".0f", "M") for row in methods.values()]
    grid = [["", *methods], ["weights", *sizes], ["multiply-adds", *costs]]
    for condition, metric in dict.fromkeys((row["condition"], row["metric"]) for row in rows):
        cells = [_cell(found.get((condition, metric, method))) for method in methods]
        grid.append([f"{condition}: {metric}", *cells])
    if len(grid) < len(grid[0]):
        grid = [list(row) for row in zip(*grid, strict=True)]
    lines = [f"| {' | '.join(row)} |" for row in grid]
    return "\n".join([lines[0], "| --- |" + " --- |" * (len(grid[0]) - 1), *lines[1:]])


def gains(rows: list[dict[str, Any]]) -> str:
    """Methods as rows, conditions as columns; the score before and after, and the gain."""
    found = {(row["method"], row["condition"], row["metric"]): row for row in rows}
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    heads = [c if c.endswith("validation") else f"{c}, test" for c in conditions]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for condition in conditions:
            after = found.get((method, condition, "mIoU"))
            if after is None:
                cells.append("")
                continue
            before = found[method, condition, "mIoU before"]["value"]
            spread = "" if after["sd"] is None else f" ± {after['sd']:.1f}"
            gain = after["value"] - before
            cells.append(f"{before:.1f} to {after['value']:.1f}{spread} (**{gain:+.1f}**)")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _numbers(row: dict[str, Any]) -> list[float]:
    """The numbers of a condition, by which rows are ordered: examples, side, noise."""
    side, *rest = re.findall(r"[\d.]+", row["condition"]) if " px" in row["condition"] else "0"
    examples = rest[-1:] if "examples" in row["condition"] else []
    return [float(number) for number in (*examples, side, *rest[:1])]


def _amount(number: int, unit: float, digits: str, letter: str) -> str:
    return f"{number / unit:{digits}}{letter}" if number else ""


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    spread = "" if row["sd"] is None else f" ± {row['sd']:.1f}"
    return f"{row['value']:.1f}{spread} ({row['seeds']})"


if __name__ == "__main__":
    typer.run(main)
