"""A results file as short tables, for docs/results.md.

python summary.py ../results/partial-labels.json [--metric mAP] [--wrong]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fa_evaluate.rows import UNREFINED, Row, read_rows

LAST = ("NLL", "ECE", "images made worse")


def main(
    file: Path,
    metric: str = "mAP",
    unit: str = "%",
    wrong: Annotated[bool, typer.Option(help="The effect of wrong evidence instead.")] = False,
) -> None:
    """Print a table for each checkpoint: a line per method, a column per amount."""
    rows = read_rows(file)
    for checkpoint in dict.fromkeys(row.checkpoint for row in rows):
        own = [row for row in rows if row.checkpoint == checkpoint]
        print(f"**{checkpoint}**, {own[0].images} images\n")
        print("\n".join(wrong_table(own, metric) if wrong else table(own, metric, unit)) + "\n")


def table(rows: Sequence[Row], metric: str, unit: str) -> list[str]:
    """The metric by amount, and with most evidence its gain and the other metrics."""
    found = {(row.method, row.known, row.metric): row for row in rows}
    amounts = sorted({row.known for row in rows if row.metric == metric and row.known})
    most = amounts[-1]
    gains = list(dict.fromkeys(row.metric for row in rows if f"{metric} gain" in row.metric))
    gains = [gain for gain in gains if "wrong" not in gain]
    last = [name for name in LAST if (UNREFINED, 0, name) in found or name == LAST[-1]]
    headings = ["method", "uses", *(f"{amount:g}{unit}" for amount in amounts), *gains, *last]
    lines = [line(headings), line(["---"] * len(headings))]
    for method in dict.fromkeys(row.method for row in rows):
        uses = next(row.uses for row in rows if row.method == method)
        bare = method == UNREFINED
        cells = [cell(found.get((method, 0 if bare else amount, metric))) for amount in amounts]
        for name in (*gains, *last):
            row = found.get((method, 0 if bare else most, name))
            cells.append(cell(row, interval=name in gains))
        lines.append(line([method, uses, *cells]))
    return lines


def wrong_table(rows: Sequence[Row], metric: str) -> list[str]:
    """The metric with shares of wrong evidence."""
    names = [metric, *dict.fromkeys(r.metric for r in rows if r.metric.startswith(f"{metric}, "))]
    most = max(row.known for row in rows)
    found = {(row.method, row.metric): row for row in rows if row.known == most}
    lines = [line(["method", *names]), line(["---"] * (len(names) + 1))]
    methods = [m for m in dict.fromkeys(r.method for r in rows) if (m, names[-1]) in found]
    return lines + [line([m, *(cell(found.get((m, name))) for name in names)]) for m in methods]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(row: Row | None, *, interval: bool = False) -> str:
    if row is None:
        return ""
    if "worse" in row.metric:
        return f"{row.value:.0%}"
    if interval:
        return f"{row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
    if row.metric in LAST:
        return f"{row.value:.4f}"
    return f"{row.value:.2f}" + (f" ± {row.sd:.2f}" if row.sd else "")


if __name__ == "__main__":
    typer.run(main)
