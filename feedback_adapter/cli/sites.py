"""`feedback-adapter sites`: where pivots can sit in a model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from feedback_adapter.cli.common import print_json, print_table
from feedback_adapter.errors import CheckpointError, InputError, ModelError, did_you_mean

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter
    from feedback_adapter.sites import SiteInfo

LARGEST = 8192
"""An image of more pixels on a side takes gigabytes in any network."""

USUAL = (224, 64, 32, 28)
"""Sizes to try with a model that doesn't say which it takes."""


def sites(
    model: Annotated[str, typer.Argument(help="A checkpoint, or a model's name in timm.")],
    size: Annotated[
        int | None, typer.Option(min=1, max=LARGEST, help="Height and width of the image.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List every place in a model where a pivot can sit."""
    from rich.markup import escape
    from rich.table import Table

    adapter = _adapter(model)
    found, height, width = _found(adapter, size)
    if json:
        print_json(
            {
                "model": model,
                "image": [height, width],
                "sites": [
                    {
                        "name": site.name,
                        "shape": list(site.shape),
                        "layout": site.layout,
                        "depth": round(site.depth, 4),
                        "tail_cost": round(site.tail_cost, 4),
                    }
                    for site in found
                ],
            }
        )
        return
    title = escape(f"{model}: {len(found)} sites, in an image of {height} x {width} pixels")
    table = Table("site", "shape", "layout", title=title, title_justify="left")
    table.add_column("depth", justify="right", no_wrap=True)
    table.add_column("tail", justify="right", no_wrap=True)
    for site in found:
        shape = "x".join(map(str, site.shape[1:]))
        table.add_row(
            escape(site.name), shape, site.layout, f"{site.depth:.0%}", f"{site.tail_cost:.0%}"
        )
    print_table(table)


def _found(adapter: Adapter, size: int | None) -> tuple[list[SiteInfo], int, int]:
    """The sites in an image of the given size, or of the first one that the model takes."""
    import torch

    from feedback_adapter.checkpoint.alike import usual_sizes
    from feedback_adapter.timm_notes import stem_channels

    sizes = [(size, size)] if size else usual_sizes(adapter.model, adapter.transform)[:1]
    sizes = sizes or [(usual, usual) for usual in USUAL]
    channels = stem_channels(adapter.model)
    for height, width in sizes[:-1]:
        with contextlib.suppress(InputError):
            return list(adapter.sites(torch.zeros(1, channels, height, width))), height, width
    height, width = sizes[-1]
    try:
        return list(adapter.sites(torch.zeros(1, channels, height, width))), height, width
    except InputError as error:
        raise InputError(f"{error} Say with --size what size of image it takes.") from error


def _adapter(name: str) -> Adapter:
    """A checkpoint or one of timm's models with random weights."""
    import timm

    import feedback_adapter as fa

    try:
        return fa.load(name)
    except CheckpointError:
        if Path(name).exists() or name.startswith("hf-hub:"):  # meant as a checkpoint
            raise
        if not timm.is_model(name):
            raise ModelError(
                f"{name!r} is neither a checkpoint nor a model of timm. "
                f"{did_you_mean(name, timm.list_models())}"
            ) from None
        network = fa.Architecture("timm", name).build()
        labels = tuple(map(str, range(cast("int", network.num_classes))))
        return fa.Adapter(network, {"output": fa.Output(labels)})
