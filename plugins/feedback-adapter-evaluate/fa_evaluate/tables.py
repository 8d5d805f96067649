"""Rows as a markdown table: a line per method and amount, a column per metric."""

from __future__ import annotations

from collections.abc import Sequence

from fa_evaluate.rows import CALIBRATED, UNREFINED, Row

__all__ = ["columns", "markdown", "table"]

_PERCENT = ("images made worse",)
_LAST = ("NLL", "ECE", "images made worse", "ms per image")


def columns(rows: Sequence[Row]) -> list[str]:
    """The metrics that are there: scores in the order they come, then what else is known."""
    found = dict.fromkeys(row.metric for row in rows)
    return [m for m in found if m not in _LAST] + [m for m in _LAST if m in found]


def table(
    rows: Sequence[Row], unit: str = "%", *, spread: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line of cells for each method and amount.

    Args:
        rows: Of one checkpoint.
        unit: Of the amounts.
        spread: Standard deviations and intervals, too; without them it fits a terminal.
    """
    metrics = columns(rows)
    lines: dict[tuple[str, float], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.method, row.known), {})[row.metric] = row
    cells = [
        [
            method,
            next(iter(found.values())).uses,
            "" if method in (UNREFINED, CALIBRATED) and not known else f"{known:g}{unit}",
            *(_cell(found.get(metric), spread) for metric in metrics),
        ]
        for (method, known), found in lines.items()
    ]
    return ["method", "uses", "known", *metrics], cells


def markdown(rows: Sequence[Row], unit: str = "%") -> str:
    """Tables of every checkpoint, for documentation."""
    parts: list[str] = []
    for checkpoint in dict.fromkeys(row.checkpoint for row in rows):
        own = [row for row in rows if row.checkpoint == checkpoint]
        headings, cells = table(own, unit)
        parts += [f"**{checkpoint}**, {own[0].images} images", ""]
        parts += [_line(headings), _line(["---"] * len(headings)), *map(_line, cells), ""]
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Row | None, spread: bool) -> str:
    if row is None:
        return ""
    if row.metric in _PERCENT:
        return f"{row.value:.0%}"
    gain = "gain" in row.metric
    digits = 2 if gain or max(abs(row.high), abs(row.low)) >= 1 else 4
    value = f"{row.value:+.{digits}f}" if gain else f"{row.value:.{digits}f}"
    if not spread:
        return value
    value += f" ± {row.sd:.{digits}f}" if row.sd else ""
    return value + (f" [{row.low:+.2f}, {row.high:+.2f}]" if gain else "")
