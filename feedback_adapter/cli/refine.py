"""`feedback-adapter refine`: predictions for photos of which something is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feedback_adapter.cli.common import console, options_of, print_json, said
from feedback_adapter.errors import ModelError

__all__ = ["refine"]


def refine(
    images: Annotated[list[Path], typer.Argument(help="Photos.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="Name (see: zoo list) or folder.")
    ] = "caption-words-lite0",
    know: Annotated[
        list[str] | None, typer.Option(help="A label that is there. Repeat for more.")
    ] = None,
    know_not: Annotated[
        list[str] | None, typer.Option(help="A label that isn't there. Repeat for more.")
    ] = None,
    know_coarse: Annotated[
        list[str] | None,
        typer.Option(help="A coarse class that the class is one of, e.g. dog; dog|cat for either."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Text from near the photo, which mentions labels.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead of a checkpoint: any timm model with ImageNet's classes."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="With --model: a safetensors file; by default timm downloads them."),
    ] = None,
    evidence: Annotated[
        list[str] | None, typer.Option(help="KIND=TEXT, for other kinds (see: plugins).")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="By default the checkpoint's.")] = None,
    pivots: Annotated[
        list[str] | None, typer.Option(help="A site (see: sites). Repeat for more.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="name=value, for the strategy, e.g. steps=20.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many unknown predictions to show.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    save_plot: Annotated[
        Path | None,
        typer.Option(help="Write a picture; for several photos, numbered."),
    ] = None,
) -> None:
    """Predict labels of photos, knowing some of them."""
    import feedback_adapter as fa

    known = said(know or [], know_not or [], evidence or [], know_coarse, text)
    adapter = fa.load(checkpoint) if model is None else fa.pretrained(model, weights)
    if adapter.transform is None:
        raise ModelError(f"{checkpoint!r} doesn't say how photos become its input (no transform).")
    batch = adapter.transform.open(*images)
    result = adapter.refine(
        batch, known, strategy=strategy, pivots=pivots or None, **options_of(option or [])
    )
    if json:
        described = result.to_dict(top)
        for path, entry in zip(images, described["images"], strict=True):
            entry["file"] = str(path)
        print_json({"checkpoint": model or checkpoint, **described})
    else:
        for index, path in enumerate(images):
            console.print(result.rich_table(top, index, title=str(path)))
    if save_plot is not None:
        for index in range(len(images)):
            path = save_plot
            if len(images) > 1:
                path = save_plot.with_stem(f"{save_plot.stem}-{index + 1}")
            result.plot(path, image=index)
            if not json:
                console.print(f"Picture: {path}")
