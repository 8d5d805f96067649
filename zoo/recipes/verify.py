"""Measure the checkpoints that are here and compare with the scores on their cards."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from feedback_adapter.checkpoint import read_config
from feedback_adapter_zoo import CHECKPOINTS
from verify_scores import FOLDERS, card_scores, scores

TOLERANCE = 0.1
"""How far a score may be from its card, in points: rounding on another machine."""
EXIT_DIFFERS = 1


def main(
    data: Annotated[Path, typer.Option(help=f"Folder with {', '.join(FOLDERS.values())}.")],
    names: Annotated[list[str] | None, typer.Argument(help="Checkpoints; by default all.")] = None,
    splits: Annotated[str, typer.Option(help="Which splits, with commas.")] = "dev,test",
) -> None:
    """Exit with 1 if a score is not that of the card, or if its data isn't there."""
    folders = {
        path.parent.name: path.parent
        for path in sorted(CHECKPOINTS.glob("*/feedback_adapter.json"))
    }
    for name in names or ():
        if name not in folders:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(folders)}.")
    table = Table("checkpoint", "split", "score", "card", "measured", "")
    wrong = False
    for name in names or folders:
        config = read_config(folders[name])
        library = (config["architecture"] or {}).get("library")
        if library == "fa_cnnf" and importlib.util.find_spec("fa_cnnf") is None:
            table.add_row(name, "", "", "", "", "left out: needs feedback-adapter-cnnf")
            continue
        if config["data"]["source"] not in FOLDERS:
            table.add_row(name, "", "", "", "", "left out: has no scores")
            continue
        for split in splits.split(","):
            card = card_scores(config, split)
            measured = scores(folders[name], data, split)
            Console(stderr=True).print(f"{name}, {split}: {measured}")
            for key, value in measured.items():
                said = card.get(key, math.nan)
                same = abs(value - said) <= TOLERANCE
                wrong |= not same
                note = "same" if same else "DIFFERS"
                table.add_row(name, split, key, f"{said:.3f}", f"{value:.3f}", note)
    Console().print(table)
    raise typer.Exit(EXIT_DIFFERS if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
