"""Tables of what the generative backward pass was measured to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown_tables import table

RESULTS = Path(__file__).parents[2] / "plugins" / "feedback-adapter-backward" / "results"
KINDS = ("nothing", "plain", "clutter", "photo", "two", "occluded")
METHODS = ("backward", "reference", "mask head", "otsu", "guided backprop", "gradcam")
FOUND = "both found"

Row = dict[str, Any]


def scenes() -> str:
    """Mask IoU, or the share with both planes found, by method and kind of scene."""
    found = _scenes()
    lines = [
        [method, *(_cell(found.get((kind, method, _metric(kind)))) for kind in KINDS)]
        for method in METHODS
    ]
    return table(["method", *KINDS], lines)


def goals() -> str:
    """What the plugin set out to reach, and what it reached."""
    found = _scenes()
    own = lambda kind, metric="": found[kind, "backward", metric or _metric(kind)]  # noqa: E731
    rivals = [found["clutter", method, "mask IoU"] for method in METHODS[1:]]
    best = max(rivals, key=lambda row: row["value"])
    guided = found["photo", "guided backprop", "mask IoU"]
    other = f"{_cell(own('clutter'))}; best other: {best['method']}, {_short(best['value'])}"
    saliency = f"{_cell(own('photo'))}; guided backprop {_short(guided['value'])}"
    hidden = own("occluded", "hidden part IoU")
    mean = own("occluded", "hidden part IoU, mean template")
    lines = [
        ["on nothing at least .85", _cell(own("nothing")), _yes(own("nothing"), 0.85)],
        [
            "plain colour at least .65 (Otsu wins there)",
            _cell(own("plain")),
            _yes(own("plain"), 0.65),
        ],
        [
            "clutter at least .55, and .1 above the best other",
            other,
            f"{_yes(own('clutter'), 0.55)}; {_yes(own('clutter'), best['value'] + 0.1)}",
        ],
        [
            "photograph at least .5 (.35 without a GPU), and .05 above guided backprop",
            saliency,
            f"{_yes(own('photo'), 0.5)} ({_yes(own('photo'), 0.35)}); "
            f"{_yes(own('photo'), guided['value'] + 0.05)}",
        ],
        ["both of two planes in at least half", _cell(own("two")), _yes(own("two"), 0.5)],
        [
            "left one right in at least 85% where both were found",
            _cell(own("two", "left right")),
            _yes(own("two", "left right"), 0.85),
        ],
        ["largest one right there (no goal)", _cell(own("two", "largest right")), ""],
        ["darkest one right there (no goal)", _cell(own("two", "darkest right")), ""],
        ["hidden part (no goal)", f"{_cell(hidden)}; mean template {_cell(mean)}", ""],
    ]
    return table(["goal", "figure", "reached"], lines)


def oracle() -> str:
    """Mask IoU when the search is given parts of the truth, on development scenes."""
    rows: list[Row] = _read("oracle")["rows"]
    kinds = list(dict.fromkeys(row["scenes"] for row in rows))
    found = {(row["scenes"], row["given"]): row for row in rows}
    given = dict.fromkeys(row["given"] for row in rows)
    lines = [[name, *(_plain(found.get((kind, name))) for kind in kinds)] for name in given]
    return table(["given to the search", *kinds], lines)


def ranking() -> str:
    """Mask IoU of the hypothesis that each rule picks, on development scenes."""
    rows: list[Row] = _read("ranking")["rows"]
    kinds = list(dict.fromkeys(row["scenes"] for row in rows))
    found = {(row["scenes"], row["rule"]): row for row in rows}
    rules = dict.fromkeys(row["rule"] for row in rows)
    lines = [[rule, *(_plain(found[kind, rule]) for kind in kinds)] for rule in rules]
    return table(["ranked by", *kinds], lines)


def compositionality() -> str:
    """Relative change of features, and change of the score, by the distance of a distractor."""
    rows: list[Row] = _read("compositionality")["rows"]
    gaps = (12, 4, 0, -8, -16, -32)
    places = dict.fromkeys((row["net"], row["site"]) for row in rows if row["gap"] is not None)
    lines: list[list[Any]] = []
    for net, site in places:
        metric = "absolute change" if site == "score" else "relative change"
        found = {
            row["gap"]: row
            for row in rows
            if (row["net"], row["site"], row["metric"]) == (net, site, metric)
        }
        lines.append([net, site, *(_plain(found[gap]) for gap in gaps)])
    heads = [f"{gap} pixels" if gap >= 0 else f"{-gap} behind it" for gap in gaps]
    return table(["network", "site", *heads], lines)


def photographs() -> str:
    """Real planes: IoU of boxes, and middles of masks inside the box, by method."""
    rows: list[Row] = _read("photographs")["rows"]
    methods = dict.fromkeys(row["method"] for row in rows)
    metrics = dict.fromkeys(row["metric"] for row in rows)
    found = {(row["method"], row["metric"]): row for row in rows}
    lines = [[method, *(_cell(found[method, metric]) for metric in metrics)] for method in methods]
    return table(["method", *metrics], lines)


def speed() -> str:
    """Seconds of a query, by the number of templates."""
    rows: list[Row] = _read("speed")["rows"]
    names = {"seconds": "seconds, median", "fastest": "fastest", "cpu_seconds": "CPU seconds"}
    lines = [[name, *(_short(row[key]) for row in rows)] for key, name in names.items()]
    return table(["templates K", *(f"{row['K']:,}" for row in rows)], lines)


def _scenes() -> dict[tuple[str, str, str], Row]:
    rows: list[Row] = _read("scenes")["rows"]
    return {(row["scenes"], row["method"], row["metric"]): row for row in rows}


def _metric(kind: str) -> str:
    return FOUND if kind == "two" else "mask IoU"


def _cell(row: Row | None) -> str:
    if row is None:
        return "not measured"
    low, high = _short(row["low"]), _short(row["high"])
    return f"{_short(row['value'])} ({low} to {high}, n = {row['n']})"


def _plain(row: Row | None) -> str:
    return "" if row is None else _short(row["value"])


def _short(value: float) -> str:
    text = f"{value:.2f}"
    return text.removeprefix("0") if value < 1 else text


def _yes(row: Row, goal: float) -> str:
    return "yes" if round(row["value"], 3) >= round(goal, 3) else "no"


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


TABLES: dict[str, Callable[..., str]] = {
    "backward-scenes": scenes,
    "backward-goals": goals,
    "backward-ranking": ranking,
    "backward-oracle": oracle,
    "backward-photographs": photographs,
    "backward-speed": speed,
    "backward-compositionality": compositionality,
}
