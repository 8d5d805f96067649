"""`feedback-adapter annotate` and `feedback-adapter playground`.

What needs the model libraries is imported inside the functions: `--help` needs none of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa_annotate.errors import AnnotateError
from feedback_adapter.cli.common import console

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter

__all__ = ["annotate", "playground"]

DEFAULT = "coco80-lite0"

Host = Annotated[
    str,
    typer.Option(help="Address to listen on. Others than 127.0.0.1 let other machines in."),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="FEEDBACK_ADAPTER_TOKEN",
        help="A password for the page, 16 characters or more. If other machines are let in and "
        "none is given, one is made up and printed.",
    ),
]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


def annotate(
    folder: Annotated[Path, typer.Argument(help="The folder with the photos.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", "-c", help=f"Name (see: zoo list) or folder. [default: {DEFAULT}]"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Instead of a checkpoint: any model of timm.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="With --model: a text file, a label in each line, in the model's order."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="With --model: a safetensors file; by default timm downloads them."),
    ] = None,
    one_holds: Annotated[
        bool,
        typer.Option(
            "--one-holds", help="With --labels: each photo has exactly one of them (a softmax)."
        ),
    ] = False,
    strategy: Annotated[str | None, typer.Option(help="By default the checkpoint's.")] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Where answers go. [default: FOLDER/annotations.jsonl]")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    token: Token = None,
    open_page: Open = False,
) -> None:
    """Label photos in a browser; every answer improves the predictions that are left."""
    from fa_annotate.answers import Answers
    from fa_annotate.desk import Folder
    from fa_annotate.label_studio import routes
    from fa_annotate.photos import Photos
    from fa_annotate.serve import listen, serve
    from fa_annotate.session import Session
    from feedback_adapter.plugins import strategy as find_strategy

    if strategy not in (None, "auto"):
        find_strategy(strategy)  # an unknown name is said now, and not on the page
    photos = Photos.of(folder)  # mistakes are found before a model is loaded
    with listen(host, port) as place, Answers.open(answers or photos.folder) as kept:
        if kept.torn:
            console.print(
                "The last answer was cut off when the program was killed, and is lost: "
                f"{kept.torn:.100}",
                markup=False,
            )
        adapter = _adapter(checkpoint, model, labels, weights, one_holds=one_holds)
        title = model or checkpoint or DEFAULT
        session = Session(adapter, title, photos, kept, strategy=strategy)
        console.print(
            f"{len(photos)} photos in {photos.folder}, {len(kept.images())} with answers, which "
            f"are kept in {kept.path}.",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        more = [*routes(session)]
        serve(Folder(session), place, host, token, more=more, open_page=open_page)


def playground(
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", "-c", help="The one that is shown first.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8766,
    token: Token = None,
    open_page: Open = False,
) -> None:
    """Try evidence on example photos, and on your own, in a browser; nothing is kept."""
    from fa_annotate.desk import Playground
    from fa_annotate.serve import listen, serve

    with listen(host, port) as place:
        desk = Playground.open(checkpoint)
        try:
            serve(desk, place, host, token, open_page=open_page)
        finally:
            desk.close()


def _adapter(
    checkpoint: str | None,
    model: str | None,
    labels: Path | None,
    weights: Path | None,
    *,
    one_holds: bool,
) -> Adapter:
    import feedback_adapter as fa

    if model is None:
        extra = {"--labels": labels, "--weights": weights, "--one-holds": one_holds or None}
        for name in (name for name, value in extra.items() if value is not None):
            raise AnnotateError(f"{name} needs --model, which it belongs to.")
        return fa.load(DEFAULT if checkpoint is None else checkpoint)
    if checkpoint is not None:
        raise AnnotateError(
            f"--checkpoint {checkpoint!r} and --model {model!r}: only one of them can be used."
        )
    if labels is None:
        return fa.pretrained(model, weights)
    from fa_annotate.models import labelled

    return labelled(model, labels, weights, kind="multiclass" if one_holds else "multilabel")
