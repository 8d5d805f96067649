"""`feedback-adapter zoo`: the trained checkpoints at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from feedback_adapter.cli.commands import Commands
from feedback_adapter.cli.common import console, print_json, print_table
from feedback_adapter.errors import FeedbackAdapterError

app = typer.Typer(cls=Commands, help="The trained checkpoints at hand.", no_args_is_help=True)

_ANSWERS = {True: "yes", False: "no", None: "damaged"}


@app.command("list")
def list_checkpoints(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the checkpoints of all plugins."""
    from rich.markup import escape
    from rich.table import Table

    from feedback_adapter.plugins import plugins

    specs = plugins().all("checkpoints")
    rows: list[dict[str, Any]] = [
        {
            "name": spec.name,
            "summary": spec.summary,
            "photos": _takes_photos(spec.path),
            "path": str(spec.path),
        }
        for spec in specs
    ]
    if json:
        print_json({"checkpoints": rows})
        return
    if not rows:
        console.print("No checkpoints. Install the distribution feedback-adapter-zoo for some.")
        return
    caption = "photos: whether refine takes photos; the others are for data sets."
    table = Table("checkpoint", "photos", "what it is", caption=caption)
    for row in rows:
        table.add_row(escape(row["name"]), _ANSWERS[row["photos"]], escape(row["summary"]))
    print_table(table)


def _takes_photos(folder: Path) -> bool | None:
    """Whether a checkpoint says how photos become its input; `None` if it can't be read."""
    from feedback_adapter.checkpoint import read_config

    try:
        return bool(read_config(folder).get("transform"))
    except FeedbackAdapterError:
        return None


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name, folder or hf-hub:owner/name.")],
    json: Annotated[bool, typer.Option("--json", help="Print its config.")] = False,
) -> None:
    """Show a checkpoint's card."""
    from rich.markdown import Markdown

    from feedback_adapter.checkpoint import find, read_card, read_config

    folder = find(name)
    config = read_config(folder)
    if json:
        print_json(config)
        return
    text = read_card(folder, config).text
    if text:
        console.print(Markdown(text))
    else:
        outputs = {key: len(value["labels"]) for key, value in config["outputs"].items()}
        console.print(f"{name}: {config['architecture']}, labels per output: {outputs}")
