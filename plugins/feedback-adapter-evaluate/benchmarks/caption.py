"""Words known and the caption unknown, and the other way round (paper section 4.4).

    python caption.py --data DATA --out ../results/caption.json

This takes hours on one core. `--strategy clamp --no-baselines --add` measures one strategy, and
puts its rows into the file in place of the old ones.

`feedback-adapter evaluate flickr8k-caption-lite0 --protocol caption` measures the same without the
baselines, which need the training images.
"""

from __future__ import annotations

import dataclasses
import sys
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import torch
import typer

import feedback_adapter as fa
from fa_evaluate.baselines.caption_neighbours import Neighbours
from fa_evaluate.data.base import LabelledImages
from fa_evaluate.data.flickr8k import read_captions
from fa_evaluate.data.words import targets_for
from fa_evaluate.methods import strategies_of
from fa_evaluate.protocols.caption import CaptionProtocol
from fa_evaluate.request import Request
from fa_evaluate.rows import Row, read_rows, write_rows
from fa_evaluate.tables import markdown
from feedback_adapter.batches import in_batches

CHECKPOINT = "flickr8k-caption-lite0"
STRATEGIES = ["clamp", "newton", "residual", "residual-reference"]
"""With one pivot the layer-wise form is the same computation: `--strategy layerwise` shows it."""
NEIGHBOURS, SHARE = 20, 0.5
"""Of the baseline that mixes the image's own vector with its neighbours', chosen on dev."""


def main(
    data: Annotated[Path, typer.Option(help="Folder of Flickr8k.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Name or folder.")] = CHECKPOINT,
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    strategy: Annotated[list[str], typer.Option(help="Repeat for more.")] = STRATEGIES,
    known: Annotated[str, typer.Option(help="Percent of the words.")] = "25,50,75,100",
    draws: Annotated[int, typer.Option(help="At least 3.")] = 3,
    limit: Annotated[int | None, typer.Option(help="The first so many photos.")] = None,
    baselines: Annotated[bool, typer.Option(help="They look at the training images.")] = True,
    add: Annotated[bool, typer.Option("--add", help="Keep the other rows of --out.")] = False,
) -> None:
    """Measure, print a table, write the results."""
    request = Request.of(checkpoint, data, split=split, limit=limit, strategies=tuple(strategy))
    adapter = request.adapter
    labels = adapter.outputs["words"].labels
    texts = read_captions(data)
    of = dict(zip(texts.names, texts.captions, strict=True))
    own = request.labelled("words")
    train = dataclasses.replace(request, split="train", limit=None).labelled("words")
    told = [of[name] for name in train.names]
    reliability = fa.Reliability.fit(
        [captions[0] for captions in told],
        torch.from_numpy(targets_for([captions[1:] for captions in told], labels)),
        labels,
    )
    protocol = CaptionProtocol(
        known=[float(share) for share in known.split(",")], draws=draws, reliability=reliability
    )
    methods = strategies_of(request)
    if "residual" in methods:
        methods["residual, untuned"] = {"strategy": "residual", "options": fa.ResidualOptions()}
    rows = protocol.run(
        adapter, request.photos(own), [of[name] for name in own.names], own.targets, methods,
        note, checkpoint=request.config["name"],
        baselines=neighbours(request, train) if baselines else {},
    )  # fmt: skip
    if out is not None:
        rows = kept(out, rows) if add else rows
        write_rows(out, rows, [protocol.seed], split=split, draws=draws, known_unit=KNOWN_UNIT)
    print(file=sys.stderr)
    for names in (["CIDEr, ", "BLEU-4, "], ["gain, "], ["left out"], ["mAP"]):
        print(markdown([row for row in rows if any(name in row.metric for name in names)]))


def neighbours(request: Request, train: LabelledImages) -> dict[str, Neighbours]:
    """What is there to be compared with: it takes words from the captions of training images."""
    photos = request.photos(train)

    def vectors(rows: torch.Tensor) -> torch.Tensor:
        note(f"training images from {int(rows[0]) + 1} of {len(photos)}")
        return request.adapter.unrefined(photos[rows])["caption"]

    theirs = in_batches(vectors, len(photos)), torch.from_numpy(train.targets)
    return {
        "neighbours in words": Neighbours(*theirs, NEIGHBOURS),
        "image and neighbours in words": Neighbours(*theirs, NEIGHBOURS, SHARE),
    }


def kept(out: Path, rows: list[Row]) -> list[Row]:
    """The rows of the file that weren't measured again, and then these."""
    key = attrgetter("checkpoint", "method", "known", "metric")
    again = set(map(key, rows))
    return [row for row in read_rows(out) if key(row) not in again] + rows


def note(text: str) -> None:
    print(f"\r{text:70}", end="", file=sys.stderr, flush=True)


KNOWN_UNIT = "percent of the words; for mAP, percent of the captions"

if __name__ == "__main__":
    typer.run(main)
