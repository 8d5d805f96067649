"""What known labels are worth on a zoo checkpoint's test split, fast.

The figures are those of `feedback-adapter evaluate caption-words-lite0 --data DATA`: the pivots of
all strategies follow the last block, so what comes before is computed once, and what follows is
wrapped as a model of its own (a tail is exact, so this changes no figure).

    python benchmarks/caption_words.py --data DATA [--split dev] [--limit N] [--out FILE]
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Annotated

import timm
import torch
import typer
from torch import nn

import feedback_adapter as fa
from feedback_adapter import data as readers
from feedback_adapter.checkpoint import find, read_config
from feedback_adapter.cli.evaluate import strategies_of
from feedback_adapter.protocols.partial_labels import PartialLabels


def main(
    data: Annotated[Path, typer.Option(help="Flickr8k, packed or official layout.")],
    checkpoint: str = "caption-words-lite0",
    split: str = "test",
    limit: int = 0,
    seed: int = 0,
    known: str = "0,25,50,75,100",
    out: Annotated[Path | None, typer.Option(help="Where the JSON goes.")] = None,
) -> None:
    """Measure residual, layerwise and both published forms by amount of evidence."""
    started = time.time()
    adapter = fa.load(checkpoint)
    config = read_config(find(checkpoint))
    labelled = readers.read(data, adapter.labels, config["data"]["source"]).subset(split)
    labelled = labelled.select(range(min(limit or len(labelled), len(labelled))))
    net = adapter.model
    features: list[torch.Tensor] = []
    with torch.no_grad():
        for rows in torch.arange(len(labelled)).split(50):
            images = torch.stack([adapter.transform(labelled.open(i)) for i in rows.tolist()])
            features.append(net.blocks(net.bn1(net.conv_stem(images))))
    after = nn.Sequential()
    for name in ("conv_head", "bn2", "global_pool", "classifier"):
        after.add_module(name, net.get_submodule(name))
    tail = fa.Adapter(after.eval(), adapter.outputs, defaults=adapter.defaults)
    protocol = PartialLabels(known=[float(share) for share in known.split(",")], seed=seed)
    rows = protocol.run(
        tail, torch.cat(features), labelled.targets, strategies_of(tail, config, None, None, {}),
        progress=lambda note: print(f"{time.time() - started:6.0f} s  {note}", flush=True),
    )  # fmt: skip
    for row in rows:
        print(f"{row.strategy:20} {row.known:4.0f}% {row.map:.2f} +- {row.map_sd:.2f}", end="  ")
        print(f"{row.map / rows[0].map - 1:+.1%}  nll {row.nll:.4f}  worse {row.share_worse:.2f}")
    result = {
        "checkpoint": checkpoint, "protocol": "partial-labels", "split": split, "seed": seed,
        "images": len(labelled), "draws": protocol.draws, "seconds": round(time.time() - started),
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "rows": [dataclasses.asdict(row) for row in rows],
    }  # fmt: skip
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
