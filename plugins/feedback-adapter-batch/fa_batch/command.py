"""`feedback-adapter batch`: a data set refined into Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feedback_adapter.cli.common import console, options_of

__all__ = ["batch"]


def batch(
    images: Annotated[
        Path,
        typer.Argument(
            help="A folder with images, or a table that names or holds them: CSV, JSON Lines, "
            "Parquet."
        ),
    ],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="Name (see: zoo list) or folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; what is there is kept.")],
    evidence: Annotated[
        Path | None,
        typer.Option(
            help="What is known: CSV with a column per label (1, 0, nothing, or -1 for uncertain), "
            "JSON Lines, Parquet, or COCO's JSON. By default what IMAGES says itself."
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="The table's column that names the images, or holds them.")
    ] = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out names that aren't the model's.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray for many machines.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Shards made at a time. By default one on this machine, and as many as a Ray "
            "cluster has cores.",
        ),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="By default the checkpoint's.")] = None,
    pivots: Annotated[
        list[str] | None, typer.Option(help="A site (see: sites). Repeat for more.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Short for --option steps=..., where a strategy has steps.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="name=value, for the strategy, e.g. step_size=0.1.")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Images in a file of the results.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Images in the model at a time.")] = 32,
    device: Annotated[str, typer.Option(help="Where the model runs, e.g. cuda.")] = "cpu",
) -> None:
    """Refine a data set into Parquet files. Started again, it makes only what is missing."""
    from fa_batch.progress import progress_of
    from fa_batch.run import describe_unknown, prepare

    options = options_of([*(option or []), *([] if steps is None else [f"steps={steps}"])])
    with progress_of() as advance:
        job = prepare(
            images, out, checkpoint=checkpoint, evidence=evidence, image_column=image_column,
            ignore_unknown=ignore_unknown, strategy=strategy,
            pivots="auto" if pivots == ["auto"] else tuple(pivots or ()) or None, options=options,
            shard_size=shard_size, batch=batch, device=device,
        )  # fmt: skip
        ignored = job.task.request.ignored
        if ignored:
            labels = [label for some in job.labels.values() for label in some]
            typer.echo(f"Left out: {describe_unknown(ignored, labels)}", err=True)
        done = job.run(engine, workers, advance(len(job.source)))
    said = f", {done.errors} of them with an error (see the column 'error')" if done.errors else ""
    rows, shards = _count(done.rows, "image"), _count(done.shards, "file")
    console.print(f"{rows}{said}: {shards} in {out}", markup=False, soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
