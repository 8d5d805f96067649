"""Tables of the protocols that `feedback-adapter-evaluate` measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from markdown_tables import table

from fa_evaluate.rows import CALIBRATED, UNREFINED, Row, read_rows

RESULTS = Path(__file__).parents[2] / "plugins" / "feedback-adapter-evaluate" / "results"
PARTS = ("posterior, joint Gaussian alone", "posterior, couplings alone")
LAST = ("NLL", "ECE", "images made worse")
_HALF = 1e-9  # what ends in 5 is rounded up
_UNITS = {"partial-labels": "%", "hierarchy": "%", "text": " captions"}


def by_amount(file: str, checkpoint: str, metric: str, without: Collection[str] = ()) -> str:
    """The metric by how much is known, and with most known its gain and the other metrics."""
    rows = _rows(file, checkpoint, without)
    found = {(row.method, row.known, row.metric): row for row in rows}
    amounts = sorted({row.known for row in rows if row.metric == metric and row.known})
    gains = list(dict.fromkeys(row.metric for row in rows if f"{metric} gain" in row.metric))
    gains = [gain for gain in gains if "wrong" not in gain]
    last = [name for name in LAST if (UNREFINED, 0, name) in found or name == LAST[-1]]
    heads = ["method", "uses", *(f"{amount:g}{_UNITS[file]}" for amount in amounts), *gains, *last]
    lines: list[list[str]] = []
    for method in _methods(rows):
        known = [0.0] * len(amounts) if method in (UNREFINED, CALIBRATED) else amounts
        uses = next(row.uses for row in rows if row.method == method)
        cells = [_cell(found.get((method, amount, metric))) for amount in known]
        cells += [
            _cell(found.get((method, known[-1], name)), interval=name in gains)
            for name in (*gains, *last)
        ]
        lines.append([method, uses, *cells])
    return table(heads, lines)


def with_wrong(file: str, checkpoint: str, metric: str, without: Collection[str] = ()) -> str:
    """The metric with shares of wrong evidence."""
    rows = _rows(file, checkpoint, without)
    names = [metric, *dict.fromkeys(r.metric for r in rows if r.metric.startswith(f"{metric}, "))]
    most = max(row.known for row in rows)
    found = {(row.method, row.metric): row for row in rows if row.known == most}
    methods = [method for method in _methods(rows) if (method, names[-1]) in found]
    return table(
        ["method", *names], ([m, *(_cell(found.get((m, name))) for name in names)] for m in methods)
    )


def ablation(checkpoint: str) -> str:
    """What each part of the posterior is good for, with all of the known half given."""
    rows = [row for row in _rows("partial-labels", checkpoint, ()) if row.known in (0, 100)]
    found = {(row.method, row.metric): row for row in rows}
    names = ["mAP", "mAP, 10% wrong", "mAP, 20% wrong", "NLL"]
    lines: list[list[str]] = []
    for part in ("posterior", *PARTS, "residual", "newton"):
        for method in (part, f"{part}, told as certain"):
            cells = [_cell(found.get((method, name))) for name in names]
            lines += [[method, *cells]] if any(cells) else []
    plain = found[UNREFINED, "mAP"]
    lines.append([UNREFINED, *[_cell(plain)] * 3, _cell(found[UNREFINED, "NLL"])])
    return table(["method", *names], lines)


def over_baseline(checkpoint: str) -> str:
    """What the posterior gains over the best baseline, by paired bootstrap."""
    rows = _rows("partial-labels", checkpoint, ())
    (metric,) = {row.metric for row in rows if row.metric.startswith("mAP gain over ")}
    own = {row.known: row for row in rows if (row.method, row.metric) == ("posterior", metric)}
    best = metric.removeprefix("mAP gain over ")
    other = {row.known: row for row in rows if (row.method, row.metric) == (best, "mAP")}
    cells = [_cell(row, interval=True) for row in own.values()]
    return table(
        ["", *(f"{known:g}% known" for known in own)],
        [
            [f"{best}, mAP", *(_cell(other[known]) for known in own)],
            ["gain of the posterior [95%]", *cells],
        ],
    )


def readme() -> str:
    """The table in the README."""
    rows = _rows("partial-labels", "caption-words-lite0", ())
    found = {(row.method, row.known): row for row in rows if row.metric == "mAP"}
    plain = found[UNREFINED, 0].value
    heads = ["share that is known", "unrefined network", "feedback as published"]
    heads += ["`residual`: uses the weights only", "`posterior`: also uses label statistics"]
    lines: list[list[str]] = []
    for share in (25.0, 50.0, 75.0, 100.0):
        cells = [f"{share:g}%", f"{plain:.2f}"]
        for method in ("residual-reference", "residual, told as certain", "posterior"):
            row = found[method, share]
            value, spread = f"{row.value:.2f}", f" ± {row.sd:.2f}"
            value = f"**{value}**" if method == "posterior" else value
            more = share == 100 and method != "residual-reference"
            cells.append(value + spread + (f" ({row.value / plain - 1:+.0%})" if more else ""))
        cells.append(_cell(found["ridge on probabilities and known", share]))
        lines.append(cells)
    return table([*heads, "best baseline"], lines)


def captions_from_words(without: Collection[str] = ()) -> str:
    """CIDEr-D of captions by the share of words that are known."""
    rows = _rows("caption", "flickr8k-caption-lite0", without)
    found = {(row.method, row.known, row.metric): row for row in rows}
    metric, shares = "CIDEr, 3 beams", (25.0, 50.0, 75.0, 100.0)
    heads = ["method", "uses", *(f"{share:g}% known" for share in shares)]
    heads += ["gain at 100% [95%]", "BLEU-4 at 100%"]
    lines: list[list[str]] = []
    for method in _methods(row for row in rows if row.metric == metric):
        known = (0.0,) * len(shares) if method == UNREFINED else shares
        uses = next(row.uses for row in rows if row.method == method)
        cells = [_cell(found[method, share, metric], digits=3) for share in known]
        gain = found.get((method, 100.0, "CIDEr gain, 3 beams"))
        bleu = found[method, known[-1], "BLEU-4, 3 beams"]
        lines.append([method, uses, *cells, _cell(gain, digits=3, interval=True), _cell(bleu)])
    return table(heads, lines)


def words_from_captions() -> str:
    """mAP of the words of the other captions, with one caption known."""
    rows = _rows("caption", "flickr8k-caption-lite0", ())
    found = {(row.method, row.metric): row for row in rows}
    kinds = {", from a caption": "`Captions`", ", from a caption as text": "`Text`"}
    lines: list[list[str]] = []
    for method in _methods(rows):
        for ending, evidence in kinds.items():
            name = method.removesuffix(ending)
            if name != method and not name.endswith(", from a caption"):
                row = found[method, "mAP of words not mentioned"]
                gain = found[method, "mAP gain of words not mentioned"]
                lines.append([name, evidence, _cell(row), _cell(gain, interval=True)])
    return table(["method", "evidence", "mAP", "gain [95%]"], lines)


def annotation(file: str = "annotation", without: Collection[str] = ()) -> str:
    """F1 by the number of answers, and how many it takes until F1 is somewhere."""
    rows = _rows(file, "caption-words-lite0", without)
    found = {(row.method, row.known, row.metric): row for row in rows}
    answers = sorted({row.known for row in rows if row.metric == "F1"})
    shown = [count for count in answers if count % 10 == 0]
    goals = [g for g in dict.fromkeys(r.metric for r in rows) if g.startswith("answers until")]
    heads = ["answers per photo", *(f"{count:g}" for count in shown)]
    heads += [goal.removeprefix("answers ") for goal in goals]
    lines: list[list[str]] = []
    for method in _methods(rows):
        reached = [found.get((method, answers[-1], goal)) for goal in goals]
        cells = [_cell(found.get((method, count, "F1"))) for count in shown]
        name = method.replace(UNREFINED, "without feedback")
        lines.append([name, *cells, *(_cell(row, digits=1) for row in reached)])
    return table(heads, lines)


def moves() -> str:
    """Which share of the words that move most move the right way, by what is told."""
    rows = json.loads((RESULTS / "moves.json").read_text())["rows"]
    heads = ["told", "method", "right", "promised", "rise", "mAP", "nats"]
    return table(
        heads,
        [
            [
                row["told"],
                row["strategy"],
                *(f"{row[key]:.0f}%" for key in ("right", "promised", "risen")),
                f"{row['map_before']:.2f} → {row['map_after']:.2f}",
                f"{row['nats']:+.2f}",
            ]
            for row in rows
        ],
    )


def _rows(file: str, checkpoint: str, without: Collection[str]) -> list[Row]:
    rows = [row for row in read_rows(RESULTS / f"{file}.json") if row.checkpoint == checkpoint]
    unknown = set(without) - {row.method for row in rows}
    if unknown or not rows:
        raise ValueError(f"{file}.json has no rows of {checkpoint!r} and {sorted(unknown)}")
    return [row for row in rows if row.method not in without]


def _methods(rows: Iterable[Row]) -> list[str]:
    names = list(dict.fromkeys(row.method for row in rows))
    return sorted(names, key=lambda name: name != UNREFINED)  # that first, the others as they are


def _cell(row: Row | None, *, digits: int = 2, interval: bool = False) -> str:
    if row is None:
        return ""
    if "worse" in row.metric:
        return f"{row.value:.0%}"
    if interval:
        low, high = f"{row.low:+.{digits}f}", f"{row.high:+.{digits}f}"
        return f"{row.value + _HALF:+.{digits}f} [{low}, {high}]"
    if row.metric in LAST:
        return f"{row.value:.4f}"
    return f"{row.value + _HALF:.{digits}f}" + (f" ± {row.sd:.{digits}f}" if row.sd else "")


TABLES: dict[str, Callable[..., str]] = {
    "by-amount": by_amount,
    "with-wrong": with_wrong,
    "ablation": ablation,
    "over-baseline": over_baseline,
    "captions-from-words": captions_from_words,
    "words-from-captions": words_from_captions,
    "annotation": annotation,
    "moves": moves,
}
