"""Annotation effort: what feedback saves somebody who corrects a model's labels.

    python annotation.py --data DATA [caption-words-lite0] [--images 300]

A simulated annotator is asked, photo by photo, for the label that the model is least sure of
(whose probability is nearest to the threshold), and answers truly. Feedback then updates the
labels that haven't been asked for. Without feedback an answer changes its own label only. The
threshold makes the plain model's F1 on dev best and is the same for all methods. Measured is F1
over all labels and photos, answered ones counted as right, after each answer, and the number of
answers per photo until it reaches the targets.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

import feedback_adapter as fa
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.cached import Cached
from fa_evaluate.methods import tier_of
from fa_evaluate.metrics import Score
from fa_evaluate.rows import PLAIN, Row, read_rows, write_rows
from fa_evaluate.tables import markdown

RESULTS = Path(__file__).parents[1] / "results"
TARGETS = (60.0, 70.0)
METHODS: dict[str, dict[str, Any]] = {
    "residual": {"strategy": "residual"},
    "posterior": {"strategy": "posterior"},
    "posterior, without feedback": {"strategy": "posterior", "feedback": None},
}


def main(
    checkpoints: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")] = Path("data"),
    cache: Annotated[Path, typer.Option(help="For what comes before pivots.")] = Path("runs/cache"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    images: Annotated[int, typer.Option(help="How many photos, drawn with seed 0.")] = 300,
    answers: Annotated[int, typer.Option(help="Most answers per photo.")] = 40,
    only: Annotated[str, typer.Option(help="Methods, with semicolons.")] = ";".join(METHODS),
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "annotation.json",
) -> None:
    """Measure and write rows; print the table."""
    for name in checkpoints or ["caption-words-lite0"]:
        started = time.time()
        measured = measure(name, data, cache, split, images, answers, only.split(";"))
        rows = [row for row in read_rows(out) if row.checkpoint != name] if out.is_file() else []
        rows += measured
        write_rows(out, rows, [0], split=split, answers=answers)
        print(markdown(measured, " answers"), f"{time.time() - started:.0f} s", flush=True)


def measure(
    name: str, data: Path, cache: Path, split: str, images: int, answers: int, only: Sequence[str]
) -> list[Row]:
    model = Cached(name, data, cache)
    if not model.tail.priors:
        train = model.split("train")
        model.tail.fit_prior(train.logits.sigmoid(), train.truth)
    dev, own = model.split("dev", start=True), model.split(split, start=True)
    limit = best_threshold(dev.logits, dev.truth > 0)
    drawn = np.random.default_rng(0).permutation(len(own.truth))[:images]
    assert own.start is not None
    start, logits, truth = own.start[drawn], own.logits[drawn], own.truth[drawn] > 0
    bootstrap = Bootstrap(len(drawn), samples=200)
    rows: list[Row] = []
    base: list[np.ndarray] = []
    for method in (PLAIN, *only):
        arguments = METHODS.get(method, {})
        print(method, flush=True)
        found = ask(model.tail, start, logits, truth, limit, answers, arguments)
        curve = [bootstrap(f1(right)) for right in found]
        base = base or curve
        for asked in range(0, answers + 1, 5):
            draw = {"F1": curve[asked], "F1 gain": curve[asked] - base[asked]}
            rows += bootstrap.rows(
                name, method, asked, [draw], tier=tier_of(arguments), baseline=method == PLAIN
            )
        for target in TARGETS:
            own_, other = reached(curve, target), reached(base, target)
            draw = {
                f"answers until F1 is {target:g}": own_,
                f"answers saved until F1 is {target:g}, percent": 100 * (1 - own_ / other),
            }
            rows += bootstrap.rows(
                name, method, answers, [draw], tier=tier_of(arguments), baseline=method == PLAIN
            )
    return rows


def ask(
    tail: fa.Adapter, start: Tensor, logits: Tensor, truth: Tensor, limit: float, answers: int,
    arguments: dict[str, Any],
) -> list[np.ndarray]:  # fmt: skip
    """(images, 3) true positives, false positives and misses, after 0, 1, ... answers."""
    known = torch.zeros_like(truth)
    current = logits.clone()
    found: list[np.ndarray] = []
    for asked in range(answers + 1):
        said = torch.where(known, truth, current > limit)
        hits, extra, missed = said & truth, said & ~truth, ~said & truth
        found.append(torch.stack([hits.sum(1), extra.sum(1), missed.sum(1)], 1).numpy())
        if asked == answers:
            return found
        doubt = (current - limit).abs().masked_fill(known, torch.inf)
        known[torch.arange(len(known)), doubt.argmin(1)] = True
        if arguments:
            parts = [
                tail.refine(
                    start[rows], fa.Labels.from_tensors(truth[rows], known[rows]), **arguments
                ).outputs_after["output"]
                for rows in torch.arange(len(start)).split(100)
            ]
            current = torch.cat(parts)
    return found


def f1(counts: np.ndarray) -> Score:
    """F1 over all labels and images, 0 to 100."""

    def score(weight: np.ndarray | None) -> float:
        hits, extra, missed = (counts.sum(0) if weight is None else weight @ counts).tolist()
        return 100 * 2 * hits / (2 * hits + extra + missed)

    return score


def reached(curve: Sequence[np.ndarray], target: float) -> np.ndarray:
    """How many answers each resample takes to a target; one more than were given, if never."""
    there = np.stack(curve) >= target
    return np.where(there.any(0), there.argmax(0), len(curve)).astype(float)


def best_threshold(logits: Tensor, truth: Tensor) -> float:
    """The logit above which a label counts as there, for the best F1."""
    found: list[tuple[float, float]] = []
    for limit in torch.arange(-3.0, 1.0, 0.1).tolist():
        said = logits > limit
        hits, wrong = int((said & truth).sum()), int((said ^ truth).sum())
        found.append((2 * hits / (2 * hits + wrong), limit))
    return max(found)[1]


if __name__ == "__main__":
    typer.run(main)
