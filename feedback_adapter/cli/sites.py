"""`feedback-adapter sites`: where pivots can sit in a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from feedback_adapter.cli.common import print_json, print_table
from feedback_adapter.errors import CheckpointError, ModelError, did_you_mean

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter

LARGEST = 8192
"""An image of more pixels on a side takes gigabytes in any network."""


def sites(
    model: Annotated[str, typer.Argument(help="A checkpoint, or a model's name in timm.")],
    size: Annotated[
        int | None, typer.Option(min=1, max=LARGEST, help="Height and width of the image.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List every place in a model where a pivot can sit."""
    import torch
    from rich.markup import escape
    from rich.table import Table

    adapter, own = _adapter(model)
    height, width = (size, size) if size else own or (224, 224)
    weights = (weight for weight in adapter.model.parameters() if weight.ndim == 4)
    channels = next((weight.shape[1] for weight in weights), 3)  # of the first convolution
    found = adapter.sites(torch.zeros(1, channels, height, width))
    if json:
        print_json(
            {
                "model": model,
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
    table = Table(title=escape(f"{model}: {len(found)} sites"), title_justify="left")
    for heading in ("site", "shape", "layout"):
        table.add_column(heading, overflow="fold")
    table.add_column("depth", justify="right", no_wrap=True)
    table.add_column("tail", justify="right", no_wrap=True)
    for site in found:
        shape = "x".join(map(str, site.shape[1:]))
        table.add_row(
            escape(site.name), shape, site.layout, f"{site.depth:.0%}", f"{site.tail_cost:.0%}"
        )
    print_table(table)


def _adapter(name: str) -> tuple[Adapter, tuple[int, int] | None]:
    """A checkpoint or one of timm's models with random weights, and its usual size."""
    import timm

    import feedback_adapter as fa

    try:
        adapter = fa.load(name)
    except CheckpointError:
        if Path(name).exists() or name.startswith("hf-hub:"):  # meant as a checkpoint
            raise
        if not timm.is_model(name):
            raise ModelError(
                f"{name!r} is neither a checkpoint nor a model of timm. "
                f"{did_you_mean(name, timm.list_models())}"
            ) from None
        network = fa.Architecture("timm", name).build()
        _, height, width = network.pretrained_cfg.get("input_size", (3, 224, 224))  # pyright: ignore
        count = network.num_classes  # pyright: ignore
        labels = tuple(map(str, range(cast("int", count))))
        return fa.Adapter(network, {"output": fa.Output(labels)}), (height, width)
    return adapter, adapter.transform.size if adapter.transform else None
