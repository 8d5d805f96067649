"""`feedback-adapter attack`: accuracy of a CNN-F checkpoint under attacks."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fa_cnnf.attacks.suite import KINDS, Budget, Row
from fa_cnnf.attacks.suite import attack as run
from fa_cnnf.checkpoints import load
from fa_cnnf.data import read, to_input
from fa_cnnf.loops import CNNF
from feedback_adapter.checkpoint import find, read_config
from feedback_adapter.errors import CheckpointError

__all__ = ["attack"]


def attack(
    checkpoint: Annotated[str, typer.Argument(help="Name or folder of a CNN-F checkpoint.")],
    eps: Annotated[list[float], typer.Option(help="Largest change of a pixel, 0 to 1. Repeat.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the images. [default: Debian's of Fashion-MNIST]"),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many, the first of the test split.")] = 50,
    readout: Annotated[
        list[str] | None, typer.Option(help="An iteration, or avg. Repeat. [default: 0, T, avg]")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(KINDS)}. Repeat. [default: all]")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Another checkpoint, to transfer attacks from.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Of PGD and Auto-PGD.")] = 40,
    queries: Annotated[int, typer.Option(min=1, help="Of Square.")] = 5000,
    targets: Annotated[int, typer.Option(min=1, help="Of targeted Auto-PGD, classes.")] = 9,
    each: Annotated[bool, typer.Option("--each", help="Every attack on all images.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Attack a CNN-F checkpoint at the read-outs that are reported.

    Attacks run one after the other, each on the images that still withstand; `worst` is what is
    left of them in the end. Accuracies are upper bounds: a better attack can only lower them.
    """
    model, own = _read(checkpoint)
    other, others = _read(source) if source else (None, own)
    if own != others:
        raise CheckpointError(f"{source!r} was trained on {others!r}, {checkpoint!r} on {own!r}.")
    pixels, labels = read(own, data)
    asked = readout or list(dict.fromkeys(["0", str(model.steps), "avg"] if model.steps else ["0"]))
    console = Console(stderr=True)
    rows: list[Row] = []
    with console.status("clean") as status:
        rows = run(
            model,
            to_input(pixels[:images]),
            labels[:images],
            eps,
            readouts=asked,
            kinds=kind or KINDS,
            source=other,
            budget=Budget(steps=steps, targets=targets, queries=queries),
            each=each,
            seed=seed,
            report=lambda row: status.update(f"{_name(row)}: {row.accuracy:.1f}"),
        )
    if json:
        found = [{"checkpoint": checkpoint} | dataclasses.asdict(row) for row in rows]
        sys.stdout.write(jsonlib.dumps({"rows": found}, indent=1) + "\n")
        return
    table = Table("read-out", "attack", "eps", "accuracy %", title=f"{checkpoint}, {images} images")
    for row in rows:
        style = "bold" if row.attack == "worst" else ""
        what = "avg" if row.iteration is None else f"iteration {row.iteration}"
        table.add_row(what, row.attack, f"{row.eps:g}", f"{row.accuracy:.1f}", style=style)
    Console().print(table)


def _name(row: Row) -> str:
    return f"{row.readout} {row.iteration} {row.attack} eps {row.eps:g}"


def _read(name: str) -> tuple[CNNF, str]:
    """The model of a checkpoint, and what images it was trained on."""
    model = load(name).model
    assert isinstance(model, CNNF), "so it is built"
    return model, read_config(find(name))["data"]["source"]
