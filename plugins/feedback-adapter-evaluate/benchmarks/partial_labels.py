"""Partial labels: feedback and label statistics against baselines, on the same known sets.

    python partial_labels.py --data DATA [caption-words-lite0] [coco80-lite0]

DATA holds the folders flickr8k and coco6k. What comes before the pivot runs once for each image
and stays in `--cache`; everything after it is wrapped as a model of its own (a tail is exact, so
figures are those of the whole model, up to rounding). Half of the labels may be known; the other
half is scored; `--splits` random halves, for each amount the same known set for all methods.
Options were chosen on dev (`--split dev`). With `--ablation` the parts of the posterior are
measured, too. The files keep what was measured before of other checkpoints and methods.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

import feedback_adapter as fa
from fa_evaluate.baselines import BASELINES, Fit, Predictor, Training, sigmoid
from fa_evaluate.cached import Cached, Split
from fa_evaluate.methods import strategies_of
from fa_evaluate.protocols.partial_labels import PartialLabels
from fa_evaluate.protocols.unknown_labels import Method
from fa_evaluate.request import Request
from fa_evaluate.rows import Row, read_rows, write_rows
from fa_evaluate.tables import markdown

RESULTS = Path(__file__).parents[1] / "results"
Refine = Callable[[bytes, bytes], torch.Tensor]
RIVALS = {
    "caption-words-lite0": "ridge on probabilities and known",
    "coco80-lite0": "logistic on logits and known",
}
"""Checkpoints, and the best baseline of each on dev: gains over it are reported, too."""


def main(
    checkpoints: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")] = Path("data"),
    cache: Annotated[Path, typer.Option(help="For what comes before pivots.")] = Path("runs/cache"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    splits: Annotated[int, typer.Option(help="Random halves of the labels.")] = 3,
    known: str = "25,50,75,100",
    flip: Annotated[str, typer.Option(help="Shares of wrong labels, in percent.")] = "5,10,20",
    only: Annotated[str, typer.Option(help="Methods, with semicolons; by default all.")] = "",
    ablation: Annotated[bool, typer.Option(help="The parts of the posterior.")] = True,
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "partial-labels.json",
) -> None:
    """Measure and write rows; print the table."""
    amounts = tuple(float(share) for share in known.split(","))
    wrong = tuple(float(share) for share in flip.split(",") if share)
    protocol = PartialLabels(amounts, draws=1, splits=splits, flip=wrong, samples=100)
    for name in checkpoints or RIVALS:
        started = time.time()
        measured = measure(name, data, cache, split, protocol, ablation, only.split(";"))
        new = {(row.checkpoint, row.method) for row in measured}
        rows = read_rows(out) if out.is_file() else []
        rows = [row for row in rows if (row.checkpoint, row.method) not in new]
        rows = sorted([*rows, *measured], key=lambda row: row.checkpoint)
        write_rows(out, rows, range(splits), split=split, draws=1)
        print(markdown(measured), f"{time.time() - started:.0f} s", flush=True)


def measure(
    name: str, data: Path, cache: Path, split: str, protocol: PartialLabels, ablation: bool,
    only: list[str],
) -> list[Row]:  # fmt: skip
    model = Cached(name, data, cache)
    train, own = model.split("train"), model.split(split, start=True)
    training = Training(train.logits.numpy(), train.truth.numpy())
    logits, truth = own.logits.numpy(), own.images.targets
    if not model.tail.priors:
        model.tail.fit_prior(train.logits.sigmoid(), train.truth)
    methods = [
        fitted(method, tier, fit, training, logits) for method, (tier, fit) in BASELINES.items()
    ]
    methods += library(model, own, ablation)
    methods = [m for m in methods if only == [""] or m.name in only]
    started = time.time()
    rows = protocol.compare(
        methods, sigmoid(logits), truth, rival=RIVALS[name], checkpoint=name,
        progress=lambda note: print(f"{time.time() - started:6.0f} s  {note}", flush=True),
    )  # fmt: skip
    return [row for row in rows if row.metric != "ms per image"]  # here only the tail's time


def fitted(name: str, tier: str, fit: Fit, training: Training, logits: np.ndarray) -> Method:
    """A baseline, fitted once for each known set."""

    @functools.cache
    def predictor(known: bytes, unknown: bytes) -> Predictor:
        return fit(training, np.frombuffer(known, int), np.frombuffer(unknown, int))

    def predict(said: np.ndarray, mask: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        known = np.flatnonzero(mask).astype(int)
        own = predictor(known.tobytes(), unknown.astype(int).tobytes())
        return own(logits, said.astype(np.float32))

    return Method(name, predict, tier, baseline=True)


def library(model: Cached, own: Split, ablation: bool) -> list[Method]:
    """Our strategies with the checkpoint's defaults, and the published forms, tuned on dev."""
    request = Request(model.name, model.tail, model.config, Path())
    methods: list[Method] = []
    moved: Refine | None = None
    # without feedback the posterior needs logits only
    still = fa.Adapter(nn.Identity(), model.tail.outputs, priors=model.tail.priors)
    at_logits = dataclasses.replace(own, start=own.logits)

    def add(name: str, run: Refine, tier: str) -> None:
        def predict(said: np.ndarray, mask: np.ndarray, unknown: np.ndarray) -> np.ndarray:
            return sigmoid(run(said.tobytes(), mask.tobytes())[:, unknown].numpy())

        methods.append(Method(name, predict, tier, "reference" in name))

    for name, arguments in strategies_of(request).items():
        if "layerwise" in name and len(arguments["pivots"] or model.tail.defaults.pivots) == 1:
            continue  # with one pivot it is the residual form
        if name != "posterior":
            run = functools.lru_cache(64)(functools.partial(refined, model.tail, own, arguments))
            moved = run if name == "residual" else moved
            add(name, run, "A")
            continue
        options = fa.PosteriorOptions(**model.tail.defaults.others.get("posterior", {}))
        assert moved is not None, "residual comes first"
        feedback = functools.partial(added, still, at_logits, moved, options)
        closed = {"strategy": "posterior", "pivots": "input"}
        if options.feedback is not None:
            assert options.feedback == fa.ResidualOptions(**model.tail.defaults.options)
            add(name, feedback, "B")
        else:
            run = functools.partial(refined, still, at_logits, {**closed, "options": options})
            add(name, run, "B")
            add("posterior, with feedback", feedback, "B")
        for part, changed in ABLATION.items() if ablation else ():
            own_options = {**closed, "options": dataclasses.replace(options, **changed)}
            run = functools.partial(refined, still, at_logits, own_options)
            add(f"posterior, {part}", run, "B")
    return methods


ABLATION: dict[str, dict[str, Any]] = {
    "without feedback": {"feedback": None},
    "independent witnesses alone": {"feedback": None, "joint": 0.0},
    "joint Gaussian alone": {"feedback": None, "joint": 1.0},
}
"""Parts of the posterior: what each method leaves out of it."""


def refined(
    tail: fa.Adapter, own: Split, arguments: dict[str, Any], said: bytes, mask: bytes
) -> torch.Tensor:
    """(N, labels) logits after `refine`; said and mask are bool arrays as bytes."""
    told = torch.from_numpy(np.frombuffer(said, bool).reshape(own.images.targets.shape).copy())
    known = torch.from_numpy(np.frombuffer(mask, bool).copy())
    assert own.start is not None
    parts = []
    for rows in torch.arange(len(told)).split(100):
        evidence = fa.Labels.from_tensors(told[rows], known)
        parts.append(tail.refine(own.start[rows], evidence, **arguments).outputs_after["output"])
    return torch.cat(parts)


def added(
    still: fa.Adapter, own: Split, moved: Refine, options: fa.PosteriorOptions, said: bytes,
    mask: bytes,
) -> torch.Tensor:  # fmt: skip
    """What `posterior` gives of unknown labels, without running feedback a second time."""
    plain = dataclasses.replace(options, feedback=None)
    arguments = {"strategy": "posterior", "pivots": "input", "options": plain}
    closed = refined(still, own, arguments, said, mask)
    return closed + options.feedback_weight * (moved(said, mask) - own.logits)


if __name__ == "__main__":
    typer.run(main)
