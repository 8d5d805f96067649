"""`feedback-adapter evaluate`: what evidence is worth, on data with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fa_evaluate.protocols import PROTOCOLS, Request
from fa_evaluate.rows import results, write_rows
from fa_evaluate.tables import markdown, table
from feedback_adapter.cli.common import check_place, console, options_of, print_json, progress_bar
from feedback_adapter.errors import OptionsError, did_you_mean

__all__ = ["evaluate"]

ACROSS = 4
"""So many metrics fit side by side into 80 columns; the others come in a table below."""


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    data: Annotated[Path, typer.Option(help="Folder with the images and their truth.")],
    protocol: Annotated[
        str, typer.Option(help=f"What is measured: {', '.join(PROTOCOLS)}.")
    ] = "partial-labels",
    known: Annotated[
        str | None,
        typer.Option(
            help="Amounts of evidence: percent of the known half (25,50,75,100), or captions "
            "(1,2,3,4)."
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="A strategy, or layerwise-reference or residual-reference (as published). "
            "Repeat for more; by default the protocol's."
        ),
    ] = None,
    pivots: Annotated[
        list[str] | None, typer.Option(help="A site; by default the checkpoint's.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="name=value, for strategies that aren't references.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="What the data is; by default what the checkpoint says.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, dev, test or all.")] = "test",
    draws: Annotated[int, typer.Option(help="Draws of what is known, where it is drawn.")] = 5,
    splits: Annotated[int, typer.Option(help="Random splits of the labels into halves.")] = 1,
    flip: Annotated[
        str | None, typer.Option(help="Also with wrong evidence: percent, as 5,10,20.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many images only.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images refined at a time.")] = 64,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON here, and a markdown table beside it.")
    ] = None,
) -> None:
    """Measure what evidence is worth, by a protocol of the paper."""
    if protocol not in PROTOCOLS:
        raise OptionsError(
            f"There is no protocol {protocol!r}. {did_you_mean(protocol, PROTOCOLS)}"
        )
    if out is not None:  # before the work, not after it
        if out.suffix == ".md":
            raise OptionsError(
                f"--out {str(out)!r} is where the table goes: name a .json file, and the table is "
                "written beside it."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        check_place(out, "--out")
    with progress_bar() as bar:
        task = bar.add_task("loading", total=None)

        def note(text: str) -> None:
            bar.update(task, description=text)

        request = Request.of(
            checkpoint, data,
            source=source, split=split, limit=limit, known=_amounts("known", known),
            strategies=tuple(strategy or ()), pivots=tuple(pivots) if pivots else None,
            options=options_of(option or []), draws=draws, splits=splits,
            flip=_amounts("flip", flip), seed=seed, batch=batch,
            progress=note,
        )  # fmt: skip
        rows = PROTOCOLS[protocol](request)
    notes = {"checkpoint": checkpoint, "protocol": protocol, "split": split, "draws": draws}
    seeds = range(seed, seed + max(splits, 1))
    unit = " captions" if protocol == "text" else "%"
    if out is not None:
        write_rows(out, rows, seeds, **notes)
        out.with_suffix(".md").write_text(markdown(rows, unit))
    if json:
        print_json(results(rows, seeds, **notes))
        return
    headings, cells = table(rows, unit, spread=False)
    console.print(f"{checkpoint}, {split}, {rows[0].images} images", markup=False, soft_wrap=True)
    for start in range(3, len(headings), ACROSS):
        places = [0, 1, 2, *range(len(headings))[start : start + ACROSS]]
        shown = Table()
        for place in places:
            side = "right" if place > 1 else "left"
            shown.add_column(headings[place], justify=side, overflow="fold")
        for line in cells:
            if any(line[place] for place in places[3:]):
                shown.add_row(*(line[place] for place in places))
        console.print(shown)


def _amounts(name: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(",")) if text else ()
    except ValueError:
        raise OptionsError(f"--{name} {text!r} must be numbers with commas, as 0,50,100.") from None
