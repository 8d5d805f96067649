"""`feedback-adapter evaluate`: what evidence is worth, on data with the truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from feedback_adapter import data as readers
from feedback_adapter.adapter import Adapter
from feedback_adapter.checkpoint import find, load, read_config
from feedback_adapter.cli.common import console, options_of, print_json, progress_bar
from feedback_adapter.errors import CheckpointError, ModelError, OptionsError
from feedback_adapter.protocols.partial_labels import PartialLabels
from feedback_adapter.strategies import LayerwiseOptions, ResidualOptions

__all__ = ["evaluate", "strategies_of"]

_REFERENCE = {
    "layerwise-reference": ("layerwise", LayerwiseOptions),
    "residual-reference": ("residual", ResidualOptions),
}


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="Name or folder of a multilabel checkpoint.")],
    data: Annotated[Path, typer.Option(help="Folder with the images and their labels.")],
    known: Annotated[
        str, typer.Option(help="Amounts of known labels, in percent of the known half.")
    ] = "0,25,50,75,100",
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="A strategy, or layerwise-reference or residual-reference (as published). "
            "Repeat for more; by default these four."
        ),
    ] = None,
    pivots: Annotated[
        list[str] | None, typer.Option(help="A site; by default the checkpoint's.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="name=value, for strategies that aren't references.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, dev, test or all.")] = "test",
    draws: Annotated[int, typer.Option(help="Draws where less than all are known.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the halves and the draws.")] = 0,
    limit: Annotated[int | None, typer.Option(help="The first so many images only.")] = None,
    batch: Annotated[int, typer.Option(help="Images refined at a time.")] = 64,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure mean average precision on unknown labels, by amount of known ones."""
    try:
        amounts = [float(share) for share in known.split(",")]
    except ValueError:
        raise OptionsError(f"--known {known!r} must be numbers with commas, as 0,50,100.") from None
    protocol = PartialLabels(known=amounts, draws=draws, seed=seed, batch=batch)
    config = read_config(find(checkpoint))
    source = (config.get("data") or {}).get("source")
    if source is None:
        raise CheckpointError(f"{checkpoint!r} doesn't say what data its labels come from.")
    adapter = load(checkpoint)
    labelled = readers.read(data, adapter.labels, source).subset(split)
    labelled = labelled.select(range(min(limit or len(labelled), len(labelled))))
    chosen = strategies_of(adapter, config, strategy, pivots, options_of(option or []))
    with progress_bar() as bar:
        images = _images(adapter, labelled, bar)
        passes = sum(sum(1 for _ in protocol.masks(len(adapter.labels), s)) for s in amounts if s)
        task = bar.add_task("plain model", total=1 + passes * len(chosen))
        rows = protocol.run(
            adapter, images, labelled.targets, chosen,
            progress=lambda note: bar.update(task, description=note, advance=1),
        )  # fmt: skip
    if json:
        print_json(
            {
                "checkpoint": checkpoint,
                "protocol": "partial-labels",
                "split": split,
                "images": len(labelled),
                "seed": seed,
                "draws": draws,
                "rows": [dataclasses.asdict(row) for row in rows],
            }
        )
        return
    base = rows[0].map
    table = Table(title=f"{checkpoint}, {split}, {len(labelled)} images", title_justify="left")
    for heading in ("strategy", "known", "mAP", "sd", "gain", "NLL", "worse", "ms/image"):
        table.add_column(heading, justify="left" if heading == "strategy" else "right")
    for row in rows:
        table.add_row(
            row.strategy, f"{row.known:g}%", f"{row.map:.2f}", f"{row.map_sd:.2f}",
            f"{row.map / base - 1:+.1%}", f"{row.nll:.4f}", f"{row.share_worse:.0%}",
            f"{row.ms_per_image:.1f}",
        )  # fmt: skip
    console.print(table)


def strategies_of(
    adapter: Adapter,
    config: dict[str, Any],
    names: list[str] | None,
    pivots: list[str] | None,
    options: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Arguments of `refine` for each strategy to measure.

    The published forms take their step size and number of steps from the checkpoint
    (`refine.reference` in config.json, tuned on its dev split), as the paper tuned them.
    """
    if len(adapter.outputs) > 1 or next(iter(adapter.outputs.values())).kind != "multilabel":
        raise ModelError("This protocol needs a model with one multilabel output.")
    tuned = (config.get("refine") or {}).get("reference", {})
    chosen: dict[str, dict[str, Any]] = {}
    for name in names or ["residual", "layerwise", *_REFERENCE]:
        if name in _REFERENCE:
            plain, kind = _REFERENCE[name]
            own = dict(tuned.get(plain, {}))
            at = pivots or own.pop("pivots", None)
            chosen[name] = {"strategy": plain, "pivots": at, "options": kind.reference(**own)}
        else:
            defaults = dict(adapter.defaults.options)
            chosen[name] = {"strategy": name, "pivots": pivots, **defaults, **options}
    return chosen


def _images(adapter: Adapter, labelled: readers.LabelledImages, bar: Any) -> torch.Tensor:
    if adapter.transform is None:
        raise ModelError("The checkpoint doesn't say how photos become its input (no transform).")
    task = bar.add_task("reading images", total=len(labelled))
    images: list[torch.Tensor] = []
    for index in range(len(labelled)):
        images.append(adapter.transform(labelled.open(index)))
        bar.advance(task)
    return torch.stack(images)
