"""What the recipes share: from a folder of data to a checkpoint, as a command."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fa_evaluate.data import read
from pixels import load
from words import checkpoint, lite0
from words.checkpoint import Recipe
from words.multilabel import LOSSES, fit


def main(recipe: Recipe) -> None:
    """Run a recipe from the command line."""
    defaults = recipe.settings

    def command(
        data: Annotated[Path, typer.Option(help="Folder of the data, packed or official layout.")],
        out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
        epochs: Annotated[int, typer.Option(min=0, help="Passes, at most.")] = defaults.epochs,
        size: Annotated[int, typer.Option(min=32, help="Side of the input.")] = defaults.size,
        loss: Annotated[str, typer.Option(help=" or ".join(LOSSES))] = defaults.loss,
        lr: Annotated[float, typer.Option(min=0, help="Of the features.")] = defaults.lr,
        seed: Annotated[int, typer.Option(help="Of everything random.")] = defaults.seed,
        accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
        limit: Annotated[int, typer.Option(help="Use so many images a split; 0: all.")] = 0,
    ) -> None:
        if loss not in LOSSES:
            raise typer.BadParameter(f"{loss!r} is none of {', '.join(LOSSES)}.")
        settings = dataclasses.replace(
            defaults, epochs=epochs, size=size, loss=loss, lr=lr, seed=seed
        )
        run(dataclasses.replace(recipe, settings=settings), data, out, accelerator, limit)

    command.__doc__ = f"Train {recipe.name}: {recipe.summary}"
    typer.run(command)


def run(
    recipe: Recipe, data: Path, out: Path, accelerator: str = "auto", limit: int = 0
) -> dict[str, Any]:
    """Train a checkpoint and write it; a run that was cut off goes on.

    Args:
        recipe: What to train.
        data: The folder that `fa_evaluate.data.read` reads.
        out: The checkpoint's folder; the state of the run is in its `state/`.
        accelerator: "auto", "cpu" or "cuda".
        limit: Use at most so many images a split, to try a recipe out; 0 for all.

    Returns:
        What feedback_adapter.json holds.
    """
    console = Console()
    console.print(f"Reading {recipe.source} from {data} ...")
    images = read(data, None, recipe.source)
    splits = {}
    for name in ("train", "dev", "test"):
        part = images.subset(name)
        part = part.select(range(min(limit, len(part)))) if limit else part
        console.print(f"Decoding {len(part):,} images of {name} ...")
        splits[name] = load(part, recipe.settings.size)
    settings = recipe.settings
    model = lite0.create(
        len(images.labels), lite0.imagenet_weights(), settings.drop_rate, settings.drop_path
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=settings.head_epochs + settings.epochs)

        def report(entry: dict[str, Any]) -> None:
            text = f"{entry['phase']}, dev mAP {entry['dev_map']:.2f}"
            bar.update(task, completed=entry["epoch"], description=text)

        result = fit(
            model,
            splits["train"],
            splits["dev"],
            settings,
            state_file=out / "state" / "run.safetensors",
            accelerator=accelerator,
            report=report,
        )
    config = checkpoint.write(out, recipe, images.labels, result, splits, checkpoint.machine())
    console.print(f"{recipe.name} is in {out}: {config['metrics']}")
    return config
