"""Measure the checkpoints that are here and compare with the scores on their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import feedback_adapter as fa
from feedback_adapter.checkpoint import read_config
from feedback_adapter.data import LabelledImages, read
from feedback_adapter.protocols.partial_labels import mean_average_precision
from feedback_adapter_zoo import CHECKPOINTS

FOLDERS = {"caption-words": "flickr8k", "coco-objects": "coco6k"}
"""Where the data of each source is, below the folder that `--data` names."""
TOLERANCE = 0.1
"""How far a score may be from its card, in points of mAP: rounding on another machine."""


def main(
    data: Annotated[Path, typer.Option(help="Folder with the folders flickr8k and coco6k.")],
    names: Annotated[list[str] | None, typer.Argument(help="Checkpoints; by default all.")] = None,
    splits: Annotated[str, typer.Option(help="Which splits, with commas.")] = "dev,test",
) -> None:
    """Exit with 1 if a score is not that of the card."""
    table = Table("checkpoint", "split", "card", "measured", "")
    wrong = False
    for folder in sorted(path.parent for path in CHECKPOINTS.glob("*/config.json")):
        config = read_config(folder)
        source = config["data"]["source"]
        if (names and folder.name not in names) or source not in FOLDERS:
            continue
        adapter = fa.load(folder)
        images = read(data / FOLDERS[source], adapter.labels, source)
        for split in splits.split(","):
            card = config["metrics"].get(f"{split}_map", float("nan"))
            measured = score(adapter, images.subset(split), f"{folder.name}, {split}")
            same = abs(measured - card) <= TOLERANCE
            wrong |= not same
            table.add_row(
                folder.name, split, f"{card:.3f}", f"{measured:.3f}", "same" if same else "DIFFERS"
            )
    Console().print(table)
    raise typer.Exit(int(wrong))


def score(adapter: fa.Adapter, images: LabelledImages, what: str, batch: int = 32) -> float:
    """Mean average precision of the plain model over all labels, 0 to 100."""
    transform = adapter.transform
    assert transform is not None, "the zoo's checkpoints have a transform"
    logits: list[np.ndarray] = []
    for start in track(range(0, len(images), batch), what, console=Console(stderr=True)):
        rows = range(start, min(start + batch, len(images)))
        pixels = torch.stack([transform(images.open(row)) for row in rows])
        predicted = adapter.predict(pixels)
        assert isinstance(predicted, torch.Tensor), "these checkpoints have one output"
        logits.append(predicted.numpy())
    return mean_average_precision(np.concatenate(logits), images.targets)


if __name__ == "__main__":
    typer.run(main)
