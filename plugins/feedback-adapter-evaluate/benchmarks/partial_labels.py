"""Partial labels: feedback and label statistics against baselines, on the same known sets.

    python partial_labels.py --data DATA [caption-words-lite0] [coco80-lite0]

DATA holds the folders flickr8k and coco6k. Half of the labels may be known; the other half is
scored; `--splits` random halves, for each amount the same known set for all methods. Options were
chosen on dev (`--split dev`). The file keeps what was measured before of other checkpoints and
methods. `--only ablation` measures the posterior, its parts and what uses the weights alone, each
also told as certain.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import feedback_adapter as fa
from fa_evaluate.baselines import BASELINES, Fit, Predictor, Training
from fa_evaluate.methods import REFERENCE, strategies_of
from fa_evaluate.passes import unrefined_logits
from fa_evaluate.protocols.partial_labels import PartialLabels
from fa_evaluate.protocols.unknown_labels import Method
from fa_evaluate.request import Request
from fa_evaluate.rows import Row, read_rows, write_rows
from fa_evaluate.tables import markdown

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = {"caption-words-lite0": "flickr8k", "coco80-lite0": "coco6k"}
BEST = {
    "caption-words-lite0": "ridge on probabilities and known",
    "coco80-lite0": "logistic on logits and known",
}
"""Checkpoints, and the best baseline of each on dev: gains over it are reported, too."""
ABLATION: dict[str, dict[str, Any]] = {
    "joint Gaussian alone": {"latent": 0.0},
    "couplings alone": {"joint": 0.0},
}
"""Parts of the posterior: what each method changes in its options."""
ABLATED = ("posterior", *(f"posterior, {part}" for part in ABLATION), "residual", "newton")
CERTAIN = ", told as certain"

Stored = Callable[[PartialLabels, np.ndarray], Method]


def main(
    checkpoints: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")] = Path("data"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    splits: Annotated[int, typer.Option(help="Random halves of the labels.")] = 3,
    known: str = "25,50,75,100",
    flip: Annotated[str, typer.Option(help="Shares of wrong labels, in percent.")] = "5,10,20",
    only: Annotated[str, typer.Option(help="Methods, with semicolons, or 'ablation'.")] = "",
    limit: Annotated[int | None, typer.Option(help="The first so many photos.")] = None,
    stored: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: logits by recipes such as ctran.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "partial-labels.json",
) -> None:
    """Measure and write rows; print the table."""
    amounts = tuple(float(share) for share in known.split(","))
    wrong = tuple(float(share) for share in flip.split(",") if share)
    protocol = PartialLabels(amounts, draws=1, splits=splits, flip=wrong, samples=100)
    for name in checkpoints or BEST:
        started = time.time()
        request = Request.of(name, data / FOLDERS[name], split=split, limit=limit)
        others = [kept(*named.split("=", 1)) for named in stored or ()]
        measured = measure(request, protocol, asked(only), others)
        new = {(row.checkpoint, row.method) for row in measured}
        rows = read_rows(out) if out.is_file() else []
        rows = [row for row in rows if (row.checkpoint, row.method) not in new]
        rows = sorted([*measured, *rows], key=lambda row: (row.checkpoint, not row.baseline))
        write_rows(out, rows, range(splits), split=split, draws=1)
        print(markdown(measured), f"{time.time() - started:.0f} s", flush=True)


def asked(only: str) -> list[str] | None:
    """The names of the methods to measure; `None` for all."""
    if only == "ablation":
        return [name + end for name in ABLATED for end in ("", CERTAIN)]
    return only.split(";") if only else None


def measure(
    request: Request,
    protocol: PartialLabels,
    only: list[str] | None,
    stored: Sequence[Stored] = (),
) -> list[Row]:
    """Rows of every method, or only of some."""
    adapter, started = request.adapter, time.time()

    def wanted(name: str) -> bool:
        return only is None or name in only

    def note(text: str) -> None:
        print(f"\r{time.time() - started:6.0f} s  {text:70}", end="", flush=True)

    labelled = request.labelled()
    baselines = {name: found for name, found in BASELINES.items() if wanted(name)}
    others = [made(protocol, labelled.targets) for made in stored]
    if baselines:
        train = dataclasses.replace(request, split="train", limit=None).labelled()
        known, logits = (
            unrefined_logits(adapter, request.photos(images), progress=note)
            for images in (train, labelled)
        )
        training = Training(known, train.targets.astype(np.float32))
        others += [fitted(name, *own, training, logits) for name, own in baselines.items()]
    methods = {name: own for name, own in strategies(request).items() if wanted(name)}
    rows = protocol.run(
        adapter, request.photos(labelled), labelled.targets, methods, others=others,
        baseline=BEST[request.checkpoint], checkpoint=request.checkpoint, progress=note,
    )  # fmt: skip
    print()
    return [row for row in rows if row.metric != "ms per image"]


def fitted(name: str, uses: str, fit: Fit, training: Training, logits: np.ndarray) -> Method:
    """A baseline, fitted once for each known set."""

    @functools.cache
    def predictor(known: bytes, unknown: bytes) -> Predictor:
        return fit(training, np.frombuffer(known, int), np.frombuffer(unknown, int))

    def predict(said: np.ndarray, mask: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        known = np.flatnonzero(mask).astype(int)
        own = predictor(known.tobytes(), unknown.astype(int).tobytes())
        return own(logits, said.astype(np.float32))

    return Method(name, predict, uses, baseline=True)


def kept(name: str, file: str) -> Stored:
    """A method whose logits of every draw are in a file, by the draw's name."""
    logits = np.load(file)

    def made(protocol: PartialLabels, truth: np.ndarray) -> Method:
        draws = {
            (draw.known.tobytes(), protocol.said(truth, draw).tobytes()): draw
            for draw in protocol.draws_of(truth.shape[1])
        }

        def predict(said: np.ndarray, mask: np.ndarray, unknown: np.ndarray) -> np.ndarray:
            draw = draws[mask.tobytes(), said.tobytes()]
            found = logits[f"{draw}, split {draw.split}"].astype(np.float32)
            assert found.shape == (len(said), len(unknown)), "the file is of other images"
            return 1 / (1 + np.exp(-found))

        return Method(name, predict, "trained", baseline=True)

    return made


def strategies(request: Request) -> dict[str, dict[str, Any]]:
    """Our strategies with the checkpoint's options, and the published forms, tuned on dev."""
    defaults = request.adapter.defaults
    found = {
        name: arguments
        for name, arguments in strategies_of(request).items()
        # with one pivot the layer-wise form is the residual form
        if "layerwise" not in name or len(arguments["pivots"] or defaults.pivots) > 1
    }
    if "posterior" in found:
        own = fa.PosteriorOptions(**defaults.others.get("posterior", {}))
        for part, changed in ABLATION.items():
            options = dataclasses.replace(own, **changed)
            found[f"posterior, {part}"] = {"strategy": "posterior", "options": options}
    ours = {name: own for name, own in found.items() if not name.endswith(REFERENCE)}
    return found | {name + CERTAIN: {**own, "wrong": 0.0} for name, own in ours.items()}


if __name__ == "__main__":
    typer.run(main)
