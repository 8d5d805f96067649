"""Captions as text near an image (paper section 4.3), against baselines.

    python text.py --data DATA [--split dev] [--draws 5]

DATA holds the folder flickr8k. One to four captions of a photo are known, the words of one that
is left out are to be predicted; each draw leaves another one out. Reliability and baselines learn
from the captions of the training split, the baselines separately for each amount. Options are the
checkpoint's, which were chosen on dev for partial labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fa_evaluate.baselines.linear import known_only, logistic, ridge, with_probabilities
from fa_evaluate.baselines.training import Predictor, Training, sigmoid
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.data import read_captions
from fa_evaluate.data.words import targets_for
from fa_evaluate.methods import strategies_of
from fa_evaluate.passes import unrefined_logits
from fa_evaluate.protocols.text import TextNearby, fit_reliability, others
from fa_evaluate.protocols.unknown_labels import UnknownLabels
from fa_evaluate.request import Request
from fa_evaluate.rows import Row, write_rows
from fa_evaluate.tables import markdown
from feedback_adapter.evidence.text import mentions

RESULTS = Path(__file__).parents[1] / "results"
CHECKPOINT = "caption-words-lite0"


def main(
    data: Annotated[Path, typer.Option(help="Folder with flickr8k.")],
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    draws: Annotated[int, typer.Option(help="Which captions are left out: 1 to 5.")] = 3,
    amounts: str = "1,2,3,4",
    limit: Annotated[int | None, typer.Option(help="The first so many photos.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "text.json",
) -> None:
    """Measure and write rows; print the table."""
    started = time.time()

    def note(text: str) -> None:
        print(f"\r{time.time() - started:6.0f} s  {text:70}", end="", flush=True)

    request = Request.of(CHECKPOINT, data / "flickr8k", split=split)
    adapter = request.adapter
    captions = read_captions(request.data, request.what)
    train, own = captions.subset("train"), captions.subset(split, limit)
    trust = fit_reliability(train.captions, adapter.labels)
    protocol = TextNearby([int(amount) for amount in amounts.split(",")], draws, batch=100)
    chosen = strategies_of(request)
    methods = {name: chosen[name] for name in ("residual", "newton", "residual-reference")}
    methods |= {name: {"strategy": name} for name in ("posterior", "clamp")}
    photos = request.photos(own)
    rows = protocol.run(
        adapter, photos, own.captions, methods, reliability=trust, checkpoint=CHECKPOINT,
        progress=note,
    )  # fmt: skip
    logits = [
        unrefined_logits(adapter, images, progress=note)
        for images in (request.photos(train), photos)
    ]
    rows += baselines(adapter.labels, protocol, train.captions, own.captions, *logits)
    write_rows(out, rows, range(draws), split=split, draws=draws)
    print("\n" + markdown(rows, " captions"), f"{time.time() - started:.0f} s")


def baselines(
    labels: Sequence[str],
    protocol: TextNearby,
    train: Any,
    own: Any,
    train_logits: np.ndarray,
    logits: np.ndarray,
) -> list[Row]:
    """Linear models of what is mentioned, trained anew for every amount."""
    bootstrap = Bootstrap(len(own), protocol.samples, protocol.seed)
    truths = [targets_for([[c[out]] for c in own], labels) for out in range(protocol.draws)]
    rows: list[Row] = []
    for amount in protocol.amounts:
        said = counts(train, len(train[0]) - 1, amount, labels)
        missing = targets_for([c[-1:] for c in train], labels).astype(np.float32)
        fits: dict[str, tuple[str, Predictor]] = {
            "mentions alone, logistic": (
                "trained", learn(train_logits, said, missing, logistic, known_only),
            ),
            "ridge on probabilities and mentions": (
                "statistics", learn(train_logits, said, missing, ridge, with_probabilities),
            ),
        }  # fmt: skip
        for name, (uses, predict) in fits.items():
            scores = []
            for out, truth in enumerate(truths):
                scorer = UnknownLabels(sigmoid(logits), truth, bootstrap)
                scores.append(scorer(predict(logits, counts(own, out, amount, labels))))
            rows += bootstrap.rows(CHECKPOINT, name, amount, scores, uses=uses, baseline=True)
    return rows


def counts(captions: Any, left_out: int, amount: int, labels: Sequence[str]) -> np.ndarray:
    """(images, labels) how many of the captions mention each label."""
    said = [mentions(text, labels).numpy() for text in others(captions, left_out, amount)]
    return np.sum(said, axis=0, dtype=np.float32)


def learn(logits: np.ndarray, said: np.ndarray, truth: np.ndarray, fit: Any, inputs: Any) -> Any:
    """A baseline of partial labels, whose known labels are mentions and unknown ones the truth."""
    count = truth.shape[1]
    training = Training(logits, np.c_[said.astype(np.float32), truth])
    return fit(training, np.arange(count), np.arange(count, 2 * count), inputs, 0.02)


if __name__ == "__main__":
    typer.run(main)
