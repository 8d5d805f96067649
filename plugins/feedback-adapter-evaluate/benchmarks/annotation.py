"""Annotation effort: what feedback and good questions save somebody who corrects a model's labels.

    python annotation.py --data DATA [caption-words-lite0] [--images 300] [--wrong 5]

A simulated annotator is asked about one label after the other, photo by photo, and answers truly.
Which label is asked for is a part of the method: by doubt, that whose logit is nearest to the
threshold; by cost, that whose decision is expected to cost most; by gain, that whose answer is
expected to mend most, of the labels that are left, too (`fa_annotate.questions`, which has the
formulas). Feedback then updates the labels that haven't been asked for. Without feedback an answer
changes its own label only. The threshold makes the unrefined model's F1 on dev best and is the same
for all methods. Measured is F1 over all labels and photos, answered ones counted as right, after
each answer, and the number of answers per photo until it reaches the targets (between two answers
F1 is taken to grow evenly). Where only a third of the photos get answers, the most useful ones
(`next_image`) are compared with any third.

With `--wrong` that share of the answers is wrong, and the rows go to `annotation-wrong.json`. Then
there are methods, too, that don't take answers as certain: they may decide otherwise than they were
told. How often answers are wrong is estimated for each photo, or told.
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
from fa_annotate.questions import gains, next_image
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.methods import uses_of
from fa_evaluate.metrics import Score
from fa_evaluate.passes import Images, unrefined_logits
from fa_evaluate.request import Request
from fa_evaluate.rows import UNREFINED, Row, read_rows, write_rows
from feedback_adapter.batches import split

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = {"caption-words-lite0": "flickr8k", "coco80-lite0": "coco6k"}
TARGETS = (60.0, 70.0, 80.0)
FEW = 5


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to ask and to update.

    Args:
        question: What is asked for first: by `"doubt"`, `"cost"` or `"gain"`.
        arguments: Of `Adapter.refine`; `None` for no feedback.
        wrong: See `fa.Labels`.
    """

    question: str
    arguments: Mapping[str, Any] | None = None
    wrong: float | None = 0.0


RESIDUAL, POSTERIOR = {"strategy": "residual"}, {"strategy": "posterior"}
METHODS = {
    UNREFINED: Method("doubt"),
    "unrefined, asked by cost": Method("cost"),
    "residual": Method("doubt", RESIDUAL),
    "residual, asked by cost": Method("cost", RESIDUAL),
    "posterior": Method("doubt", POSTERIOR),
    "posterior, asked by cost": Method("cost", POSTERIOR),
    "posterior, asked by gain": Method("gain", POSTERIOR),
}
DOUBTED = {
    "residual, asked by cost, estimated": Method("cost", RESIDUAL, None),
    "posterior, estimated": Method("doubt", POSTERIOR, None),
    "posterior, asked by gain, estimated": Method("gain", POSTERIOR, None),
    "posterior, asked by gain, told": Method("gain", POSTERIOR, 0.05),
}
"""Also measured where some answers are wrong; who says so says 5%, or lets it be estimated."""


def main(
    checkpoints: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")] = Path("data"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    images: Annotated[int, typer.Option(help="How many photos, drawn with seed 0.")] = 300,
    answers: Annotated[int, typer.Option(help="Most answers per photo.")] = 40,
    wrong: Annotated[float, typer.Option(help="Wrong answers, in percent.")] = 0.0,
    only: Annotated[str, typer.Option(help="Methods, with semicolons; by default all.")] = "",
    out: Annotated[Path | None, typer.Option(help="JSON file.")] = None,
) -> None:
    """Measure and write rows; print the table."""
    out = out or RESULTS / ("annotation.json" if wrong == 0 else "annotation-wrong.json")
    for name in checkpoints or ["caption-words-lite0"]:
        started = time.time()
        request = Request.of(name, data / FOLDERS[name], split=split)
        methods = METHODS if wrong == 0 else METHODS | DOUBTED
        if only:
            methods = {name: methods[name] for name in dict.fromkeys([UNREFINED, *only.split(";")])}
        measured = measure(request, images, answers, wrong / 100, methods)
        done = {(row.checkpoint, row.method) for row in measured}
        kept = read_rows(out) if out.is_file() else []
        rows = [row for row in kept if (row.checkpoint, row.method) not in done] + measured
        write_rows(out, rows, [0], split=split, answers=answers, wrong=wrong)
        for row in measured:
            if row.metric not in ("F1", "F1 gain"):
                interval = f"{row.value:6.2f} [{row.low:.2f}, {row.high:.2f}]"
                print(f"{row.method:30} {row.metric:60} {interval}")
        print(f"{name}, {split}: {time.time() - started:.0f} s", flush=True)


def measure(
    request: Request, images: int, answers: int, wrong: float, methods: Mapping[str, Method]
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
    found = ask(adapter, request.photos(own), truth, replies, limit, answers, methods)
    bootstrap = Bootstrap(len(own), samples=200)
    curves = {method: [bootstrap(f1(right)) for right in found[method]] for method in methods}
    rows: list[Row] = []
    for method, how in methods.items():
        curve, base = curves[method], curves[UNREFINED]
        draws = {
            asked: {"F1": curve[asked], "F1 gain": curve[asked] - base[asked]}
            for asked in range(0, answers + 1, 5)
        }
        last = draws.setdefault(answers, {})
        for target in TARGETS:
            needed = reached(curve, target)
            last[f"answers until F1 is {target:g}"] = needed
            for question, other in against(how, methods).items():
                saved = reached(curves[other], target) - needed
                last[f"answers saved until F1 is {target:g}, against {question}"] = saved
        for asked, draw in draws.items():
            uses = "weights" if how.arguments is None else uses_of(how.arguments, adapter)
            rows += bootstrap.rows(
                name, method, asked, [draw], baseline=how.arguments is None, uses=uses
            )
    logits = torch.from_numpy(unrefined_logits(adapter, request.photos(own), progress=note))
    useful = first_third(logits, limit, adapter)
    for method, how in methods.items():
        if how.question == "gain" and answers >= FEW:
            none, few = found[method][0], found[method][FEW]
            draw = {
                "F1, any third of the photos": bootstrap(f1(none + (few - none) / 3)),
                "F1, most useful third": bootstrap(f1(np.where(useful[:, None], few, none))),
            }
            draw["F1, most useful third, gain"] = np.subtract(*reversed(draw.values()))
            rows += bootstrap.rows(name, method, FEW, [draw], uses="statistics")
    return rows


def first_third(logits: Tensor, limit: float, adapter: fa.Adapter) -> np.ndarray:
    """(images,) bool: the third of the photos that `next_image` has first, if nothing is known."""
    (prior,) = adapter.priors.values()
    order = next_image(
        logits.sigmoid(),
        couplings=prior.couplings,
        threshold=torch.tensor(limit).sigmoid().item(),
        questions=FEW,
    )
    found = np.zeros(len(logits), dtype=bool)
    found[[image for image, _ in order[: len(order) // 3]]] = True
    return found


def against(how: Method, methods: Mapping[str, Method]) -> dict[str, str]:
    """What a method is compared with: no feedback, by doubt, and answers taken as certain."""
    found = {} if how.arguments is None else {"no feedback": UNREFINED}
    others = {
        "asking by doubt": dataclasses.replace(how, question="doubt"),
        "taking answers as certain": dataclasses.replace(how, wrong=0.0),
    }
    for name, other in methods.items():
        found |= {what: name for what, own in others.items() if other == own != how}
    return found


def ask(
    adapter: fa.Adapter,
    images: Images,
    truth: Tensor,
    replies: Tensor,
    limit: float,
    answers: int,
    methods: Mapping[str, Method],
) -> dict[str, list[np.ndarray]]:
    """(images, 3) true positives, false positives and misses, after 0, 1, ... answers.

    Every batch of photos goes through the model once; each answer to each method is then
    refined from there.
    """
    found: dict[str, list[list[np.ndarray]]] = {name: [] for name in methods}
    for rows in split(len(images), 50):
        prepared = adapter.prepare(images[rows])
        for name, how in methods.items():
            note(f"images from {int(rows[0]) + 1} of {len(images)}, {name}")
            asked = truth[rows], replies[rows]
            found[name].append(_ask(adapter, prepared, *asked, limit, answers, how))
    return {
        name: [np.concatenate(step) for step in zip(*parts, strict=True)]
        for name, parts in found.items()
    }


def _ask(
    adapter: fa.Adapter, prepared: Any, truth: Tensor, replies: Tensor, limit: float, answers: int,
    how: Method,
) -> list[np.ndarray]:  # fmt: skip
    known = torch.zeros_like(truth)
    (current,) = prepared.unrefined(adapter.read).values()
    found: list[np.ndarray] = []
    for asked in range(answers + 1):
        certain = known if how.wrong == 0 else torch.zeros_like(known)
        said = torch.where(certain, replies, current > limit)
        hits, extra, missed = said & truth, said & ~truth, ~said & truth
        found.append(torch.stack([hits.sum(1), extra.sum(1), missed.sum(1)], 1).numpy())
        if asked == answers:
            break
        gain = worth(how.question, current, known, limit, adapter).masked_fill(known, -torch.inf)
        known[torch.arange(len(known)), gain.argmax(1)] = True
        if how.arguments is not None:
            evidence = fa.Labels.from_tensors(replies, known, wrong=how.wrong)
            (current,) = adapter.refine(prepared, evidence, **how.arguments).outputs_after.values()
    return found


def worth(
    question: str, logits: Tensor, known: Tensor, limit: float, adapter: fa.Adapter
) -> Tensor:
    """What each question is worth by now, (photos, labels)."""
    if question == "doubt":
        return -(logits - limit).abs()
    couplings = None
    if question == "gain":
        (prior,) = adapter.priors.values()
        couplings = prior.couplings
    return gains(logits.sigmoid(), known, couplings, torch.tensor(limit).sigmoid().item())


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
    scores = np.stack(curve)
    there = scores >= target
    first = np.where(there.any(0), there.argmax(0), len(curve))
    columns = np.arange(scores.shape[1])
    high, low = scores[np.minimum(first, len(curve) - 1), columns], scores[first - 1, columns]
    inside = (first > 0) & (first < len(curve))
    between = np.divide(target - low, high - low, out=np.ones_like(high), where=inside)
    return np.where(first == 0, 0, first - 1 + between)


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
