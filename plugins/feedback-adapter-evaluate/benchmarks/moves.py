"""Do the words that move most move the right way? It depends on what is told.

For photos of Flickr8k: of the ten words that moved most in probability, and that weren't told, the
share that moved the right way (up if one of the five captions has the word), the share that the
refined probabilities themselves promise, mean average precision, and log-likelihood in nats.

    python moves.py --data DATA/flickr8k --split test

A word that rises to 30% is right in 3 of 10 cases if the 30% are right: a well calibrated network
can't do better than its promise. So the share says more of what was told than of the strategy.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from sklearn.metrics import average_precision_score
from torch import Tensor

import feedback_adapter as fa
from fa_evaluate.data.flickr8k import read_captions
from fa_evaluate.data.words import targets_for
from fa_evaluate.request import Request
from feedback_adapter.batches import split as batches_of
from feedback_adapter.evidence.base import Evidence

RESULTS = Path(__file__).parents[1] / "results"
STRATEGIES = ("newton", "residual", "posterior")
MOVED, BATCH = 10, 64


def told(
    before: Tensor, truth: Tensor, captions: list[str], said: Tensor, seed: int
) -> Iterator[tuple[str, Tensor, Evidence]]:
    """What may be told: its name, which words that tells (images, words), and the evidence."""
    draw = torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed))
    one = top(draw.masked_fill(~truth, -1), 1) & truth
    yield "one true word", one, fa.Labels.from_tensors(truth, one)
    for count in (1, 3, 5, 10):
        first = top(before, count)
        yield f"the first {count}, checked", first, fa.Labels.from_tensors(truth, first)
    yield "a caption", said, fa.Text(captions)


def top(values: Tensor, count: int) -> Tensor:
    """(images, words) bool: the largest of each image."""
    rows = values.argsort(1, descending=True)[:, :count]
    return torch.zeros(values.shape, dtype=torch.bool).scatter_(1, rows, value=True)


def scores(before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> list[float]:
    """Of one image's words that weren't told; see the top of the file."""
    change = after - before
    most = np.argsort(-np.abs(change), kind="stable")[:MOVED]
    right = (change[most] > 0) == truth[most]
    promised = np.where(change[most] > 0, after[most], 1 - after[most])
    nats = [
        np.log(np.where(truth, p, 1 - p).clip(1e-6)).sum() for p in (before, after)
    ]  # fmt: skip
    return [
        100 * right.mean(),
        100 * promised.mean(),
        100 * (change[most] > 0).mean(),
        100 * average_precision_score(truth, before),
        100 * average_precision_score(truth, after),
        nats[1] - nats[0],
    ]


def main(
    data: Annotated[Path, typer.Option(help="Folder of Flickr8k.")],
    checkpoint: Annotated[str, typer.Option(help="Name or folder.")] = "caption-words-lite0",
    split: Annotated[str, typer.Option(help="dev or test.")] = "dev",
    limit: Annotated[int | None, typer.Option(help="The first so many photos.")] = None,
    seed: Annotated[int, typer.Option(help="Which true word is told.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure, print a table, write the results."""
    request = Request.of(checkpoint, data, split=split, limit=limit)
    adapter, labelled = request.adapter, request.labelled()
    texts = read_captions(data)
    of = dict(zip(texts.names, texts.captions, strict=True))
    first = [of[name][0] for name in labelled.names]
    said = torch.from_numpy(targets_for([[caption] for caption in first], adapter.labels))
    photos, truth = request.photos(labelled), torch.from_numpy(labelled.targets)
    parts = batches_of(len(photos), BATCH)
    prepared = [adapter.prepare(photos[rows]) for rows in parts]
    unrefined = torch.cat([kept.unrefined(adapter.read)["output"] for kept in prepared])
    before = unrefined.sigmoid()
    rows: list[dict[str, Any]] = []
    for name, known, evidence in told(before, truth, first, said, seed):
        alone = ("clamp",) if name == "a caption" else ()  # told labels move nothing else by it
        for strategy in (*alone, *STRATEGIES):
            results = [
                adapter.refine(kept, evidence.take(part), strategy=strategy).after
                for kept, part in zip(prepared, parts, strict=True)
            ]
            after = torch.cat(results).sigmoid()
            found = [
                scores(*(values[i][~known[i]].numpy() for values in (before, after, truth)))
                for i in range(len(truth))
                if bool((truth[i] & ~known[i]).any())
            ]
            right, promised, risen, was, now, nats = np.mean(found, axis=0).round(2).tolist()
            rows.append(
                {
                    "told": name, "strategy": strategy, "images": len(found), "right": right,
                    "promised": promised, "risen": risen, "map_before": was, "map_after": now,
                    "nats": nats,
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    if out is not None:
        content = {
            "checkpoint": checkpoint, "split": split, "seed": seed,
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "rows": rows,
        }  # fmt: skip
        out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
