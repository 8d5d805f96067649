"""Tables of the benchmarks of the library itself, and the pages that these write."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown_tables import table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


def searched_pivots() -> str:
    """The best gain of each pivot on dev, on the first images and on all."""
    search = _read("choose-pivots.json")["search"]
    few, many = sorted({row["images"] for row in search})
    sites = list(dict.fromkeys(row["site"] for row in search))[::-1]
    rows: list[list[str]] = []
    for site in sites:
        best = {count: _best(search, site, count) for count in (few, many)}
        steps = best[few]["gains"].index(max(best[few]["gains"])) + 1
        gains = {count: f"{max(row['gains']):+.2f}" for count, row in best.items()}
        rows.append([site, gains[few], f"{best[few]['step_size']:g} x {steps}", gains[many]])
    return table(["pivot", f"first {few} images", "step size x steps", f"{many} images"], rows)


def layers() -> str:
    """One pivot alone, and all from it to the end: gains and times."""
    measured = _read("layers.json")["rows"]
    alone = [row for row in measured if len(row["pivots"]) == 1]
    rows: list[list[Any]] = []
    for count, row in enumerate(alone, 1):
        cells = [row["pivots"][0], count, f"{row['step_size']:g} x {row['steps']}", *_gain(row)]
        for form in ("residual", "layerwise"):
            several = [
                r for r in measured if len(r["pivots"]) == count > 1 and r["strategy"] == form
            ]
            cells += _gain(several[0]) if several else ["", ""]
        rows.append(cells)
    heads = ["from this pivot on", "pivots", "step size x steps", "alone: gain", "ms a step"]
    for form in ("residual", "layerwise"):
        heads += [f"all, {form}: gain", "ms a step"]
    return table(heads, rows)


def written_pages() -> list[tuple[Path, str, str]]:
    """The pages that a benchmark writes: the file, what it must hold, and the command."""
    speed, coverage = _benchmark("speed"), _benchmark("coverage")
    results = json.loads(speed.RESULTS.read_text("utf-8"))
    return [
        (ROOT / "docs" / "speed.md", speed.page(results), "make bench"),
        (ROOT / "docs" / "coverage.md", coverage.page(), "make coverage"),
    ]


def _gain(row: dict[str, Any]) -> list[str]:
    return [f"{row['gain']:+.2f}", f"{row['ms_per_image'] / row['steps']:.1f}"]


def _best(search: list[dict[str, Any]], site: str, images: int) -> dict[str, Any]:
    own = [row for row in search if row["site"] == site and row["images"] == images]
    return max(own, key=lambda row: max(row["gains"]))


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text("utf-8"))


def _benchmark(name: str) -> Any:
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


TABLES: dict[str, Callable[..., str]] = {"searched-pivots": searched_pivots, "layers": layers}
