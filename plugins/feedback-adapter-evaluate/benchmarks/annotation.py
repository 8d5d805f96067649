"""Annotation effort: what feedback saves somebody who corrects a model's labels.

    python annotation.py --data DATA [caption-words-lite0] [--images 300] [--wrong 5]

A simulated annotator is asked, photo by photo, for the label that the model is least sure of
(whose probability is nearest to the threshold), and answers truly. Feedback then updates the
labels that haven't been asked for. Without feedback an answer changes its own label only. The
threshold makes the unrefined model's F1 on dev best and is the same for all methods. Measured is F1
over all labels and photos, answered ones counted as right, after each answer, and the number of
answers per photo until it reaches the targets. With `--wrong` that share of the answers is wrong;
methods whose name says so don't take them as certain, and may decide otherwise than they were told.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

import feedback_adapter as fa
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.methods import uses_of
from fa_evaluate.metrics import Score
from fa_evaluate.passes import Images, unrefined_logits
from fa_evaluate.request import Request
from fa_evaluate.rows import UNREFINED, Row, read_rows, write_rows
from fa_evaluate.tables import markdown
from feedback_adapter.batches import split

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = {"caption-words-lite0": "flickr8k", "coco80-lite0": "coco6k"}
TARGETS = (60.0, 70.0)
METHODS: dict[str, dict[str, Any]] = {
    "residual": {"strategy": "residual"},
    "residual, answers may be wrong": {"strategy": "residual", "wrong": None},
    "posterior": {"strategy": "posterior"},
    "posterior, answers may be wrong": {"strategy": "posterior", "wrong": None},
}


def main(
    checkpoints: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")] = Path("data"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    images: Annotated[int, typer.Option(help="How many photos, drawn with seed 0.")] = 300,
    answers: Annotated[int, typer.Option(help="Most answers per photo.")] = 40,
    wrong: Annotated[float, typer.Option(help="Wrong answers, in percent.")] = 0.0,
    only: Annotated[str, typer.Option(help="Methods, with semicolons.")] = ";".join(METHODS),
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "annotation.json",
) -> None:
    """Measure and write rows; print the table."""
    for name in checkpoints or ["caption-words-lite0"]:
        started = time.time()
        request = Request.of(name, data / FOLDERS[name], split=split)
        measured = measure(request, images, answers, wrong / 100, only.split(";"))
        rows = [row for row in read_rows(out) if row.checkpoint != name] if out.is_file() else []
        rows += measured
        write_rows(out, rows, [0], split=split, answers=answers, wrong=wrong)
        print(markdown(measured, " answers"), f"{time.time() - started:.0f} s", flush=True)


def measure(
    request: Request, images: int, answers: int, wrong: float, only: Sequence[str]
) -> list[Row]:
    adapter, name = request.adapter, request.checkpoint
    dev = dataclasses.replace(request, split="dev")
    told = dev.labelled()
    logits = torch.from_numpy(unrefined_logits(adapter, dev.photos(told), progress=note))
    limit = best_threshold(logits, torch.from_numpy(told.targets))
    own = request.labelled()
    own = own.select(np.random.default_rng(0).permutation(len(own))[:images])
    truth = torch.from_numpy(own.targets)
    generator = torch.Generator().manual_seed(0)
    replies = truth ^ (torch.rand(truth.shape, generator=generator) < wrong)
    methods = {UNREFINED: None, **{method: METHODS[method] for method in only}}
    found = ask(adapter, request.photos(own), truth, replies, limit, answers, methods)
    bootstrap = Bootstrap(len(own), samples=200)
    rows: list[Row] = []
    base = [bootstrap(f1(right)) for right in found[UNREFINED]]
    for method, arguments in methods.items():
        curve = [bootstrap(f1(right)) for right in found[method]]
        draws = {
            asked: {"F1": curve[asked], "F1 gain": curve[asked] - base[asked]}
            for asked in range(0, answers + 1, 5)
        }
        for target in TARGETS:
            needed, without = reached(curve, target), reached(base, target)
            draws.setdefault(answers, {}).update({
                f"answers until F1 is {target:g}": needed,
                f"answers saved until F1 is {target:g}, percent": 100 * (1 - needed / without),
            })  # fmt: skip
        for asked, draw in draws.items():
            rows += bootstrap.rows(
                name, method, asked, [draw], baseline=arguments is None,
                uses="weights" if arguments is None else uses_of(arguments, adapter),
            )  # fmt: skip
    return rows


def ask(
    adapter: fa.Adapter,
    images: Images,
    truth: Tensor,
    replies: Tensor,
    limit: float,
    answers: int,
    methods: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, list[np.ndarray]]:
    """(images, 3) true positives, false positives and misses, after 0, 1, ... answers.

    Every batch of photos goes through the model once; each answer to each method is then
    refined from there.
    """
    found: dict[str, list[list[np.ndarray]]] = {name: [] for name in methods}
    for rows in split(len(images), 100):
        prepared = adapter.prepare(images[rows])
        for name, arguments in methods.items():
            note(f"images from {int(rows[0]) + 1} of {len(images)}, {name}")
            asked = truth[rows], replies[rows]
            found[name].append(_ask(adapter, prepared, *asked, limit, answers, arguments))
    return {
        name: [np.concatenate(step) for step in zip(*parts, strict=True)]
        for name, parts in found.items()
    }


def _ask(
    adapter: fa.Adapter, prepared: Any, truth: Tensor, replies: Tensor, limit: float, answers: int,
    arguments: Mapping[str, Any] | None,
) -> list[np.ndarray]:  # fmt: skip
    options = dict(arguments or {})
    wrong = options.pop("wrong", 0.0)
    known = torch.zeros_like(truth)
    (current,) = prepared.unrefined(adapter.read).values()
    found: list[np.ndarray] = []
    for asked in range(answers + 1):
        said = torch.where(
            known if wrong == 0 else torch.zeros_like(known), replies, current > limit
        )
        hits, extra, missed = said & truth, said & ~truth, ~said & truth
        found.append(torch.stack([hits.sum(1), extra.sum(1), missed.sum(1)], 1).numpy())
        if asked == answers:
            break
        doubt = (current - limit).abs().masked_fill(known, torch.inf)
        known[torch.arange(len(known)), doubt.argmin(1)] = True
        if arguments is not None:
            evidence = fa.Labels.from_tensors(replies, known, wrong=wrong)
            (current,) = adapter.refine(prepared, evidence, **options).outputs_after.values()
    return found


def note(text: str) -> None:
    print(f"\r{text:70}", end="", file=sys.stderr, flush=True)


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
