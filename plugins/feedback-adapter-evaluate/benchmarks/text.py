"""Captions as text near an image (paper section 4.3), against baselines.

    python text.py --data DATA [--split dev] [--draws 5]

DATA holds the folder flickr8k. One to four captions of a photo are known, the words of one that
is left out are to be predicted; each draw leaves another one out. What comes before the pivot
runs once for each photo (see cached.py). Reliability, priors and baselines learn from the
captions of the training split, separately for each amount. Options are the checkpoint's, which
were chosen on dev for partial labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

import feedback_adapter as fa
from fa_evaluate.baselines.linear import known_only, logistic, ridge, with_probabilities
from fa_evaluate.baselines.training import Predictor, Training
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.cached import Cached
from fa_evaluate.data import read_captions
from fa_evaluate.data.words import targets_for
from fa_evaluate.methods import strategies_of
from fa_evaluate.protocols.text import TextNearby, fit_reliability, others
from fa_evaluate.protocols.unknown_labels import UnknownLabels
from fa_evaluate.request import Request
from fa_evaluate.rows import Row, write_rows
from fa_evaluate.tables import markdown
from feedback_adapter.evidence.text import mentions

RESULTS = Path(__file__).parents[1] / "results"
CHECKPOINT = "caption-words-lite0"
STATISTICS = {"strategy": "posterior", "pivots": "input", "feedback": None}


def main(
    data: Annotated[Path, typer.Option(help="Folder with flickr8k.")],
    cache: Annotated[Path, typer.Option(help="For what comes before pivots.")] = Path("runs/cache"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    draws: Annotated[int, typer.Option(help="Which captions are left out: 1 to 5.")] = 3,
    amounts: str = "1,2,3,4",
    limit: Annotated[int | None, typer.Option(help="The first so many photos.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "text.json",
) -> None:
    """Measure and write rows; print the table."""
    started = time.time()
    model = Cached(CHECKPOINT, data, cache)
    captions = read_captions(data / "flickr8k", "caption-words")
    train, own = captions.of_split("train"), captions.subset(split, limit).captions
    labels, known = model.adapter.labels, [int(amount) for amount in amounts.split(",")]
    here = model.split(split, start=True)
    assert here.start is not None
    images, logits = here.start[: len(own)], here.logits[: len(own)]
    if not model.tail.priors:
        told = model.split("train")
        model.tail.fit_prior(told.logits.sigmoid(), told.truth)
    trust = fit_reliability(train, labels)
    protocol = TextNearby(known, draws, batch=100)
    rows = protocol.run(
        model.tail, images, own, methods(model), reliability=trust, checkpoint=CHECKPOINT,
        progress=lambda note: print(f"{time.time() - started:6.0f} s  {note}", flush=True),
    )  # fmt: skip
    # without feedback the posterior needs logits only
    still = fa.Adapter(nn.Identity(), model.tail.outputs, priors=model.tail.priors)
    closed = {"posterior, without feedback": STATISTICS}
    found = protocol.run(still, logits, own, closed, reliability=trust, checkpoint=CHECKPOINT)
    rows += [row for row in found if row.method in closed and row.metric != "ms per image"]
    rows += rivals(model, protocol, train, own, logits)
    write_rows(out, rows, range(draws), split=split, draws=draws)
    print(markdown(rows, " captions"), f"{time.time() - started:.0f} s")


def methods(model: Cached) -> dict[str, dict[str, Any]]:
    """Our strategies and the published residual form."""
    chosen = strategies_of(Request(model.name, model.tail, model.config, Path()))
    return {name: chosen[name] for name in ("residual", "residual-reference")}


def rivals(
    model: Cached, protocol: TextNearby, train: Any, own: Any, logits: torch.Tensor
) -> list[Row]:
    """Linear models of what is mentioned, trained anew for every amount."""
    labels = model.adapter.labels
    plain = model.split("train").logits.numpy()
    bootstrap = Bootstrap(len(own), protocol.samples, protocol.seed)
    truths = [targets_for([[c[out]] for c in own], labels) for out in range(protocol.draws)]
    rows: list[Row] = []
    for amount in protocol.amounts:
        said = counts(train, len(train[0]) - 1, amount, labels)
        missing = targets_for([c[-1:] for c in train], labels).astype(np.float32)
        fits: dict[str, tuple[str, Predictor]] = {
            "mentions alone, logistic": ("C", learn(plain, said, missing, logistic, known_only)),
            "ridge on probabilities and mentions": (
                "B", learn(plain, said, missing, ridge, with_probabilities),
            ),
        }  # fmt: skip
        for name, (tier, predict) in fits.items():
            scores = []
            for out, truth in enumerate(truths):
                scorer = UnknownLabels(logits.sigmoid().numpy(), truth, bootstrap)
                told = counts(own, out, amount, labels)
                scores.append(scorer(predict(logits.numpy(), told)))
            rows += bootstrap.rows(CHECKPOINT, name, amount, scores, tier=tier, baseline=True)
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
