"""`feedback-adapter zoo`: the trained checkpoints at hand."""

from __future__ import annotations

from typing import Annotated

import typer

from feedback_adapter.cli.common import console, print_json

__all__ = ["app"]

app = typer.Typer(help="The trained checkpoints at hand.", no_args_is_help=True)


@app.command("list")
def list_checkpoints(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the checkpoints of all plugins."""
    from rich.table import Table

    from feedback_adapter.plugins import plugins

    specs = plugins().all("checkpoints")
    if json:
        rows = [{"name": s.name, "summary": s.summary, "path": str(s.path)} for s in specs]
        print_json({"checkpoints": rows})
        return
    if not specs:
        console.print("No checkpoints. Install the distribution feedback-adapter-zoo for some.")
        return
    table = Table()
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("what it is")
    for spec in specs:
        table.add_row(spec.name, spec.summary)
    console.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    json: Annotated[bool, typer.Option("--json", help="Print its config.json.")] = False,
) -> None:
    """Show a checkpoint's card."""
    from rich.markdown import Markdown

    from feedback_adapter.checkpoint import find, read_config

    folder = find(name)
    config = read_config(folder)
    if json:
        print_json(config)
        return
    card = folder / "card.md"
    if card.is_file():
        console.print(Markdown(card.read_text()))
    else:
        outputs = {key: len(value["labels"]) for key, value in config["outputs"].items()}
        console.print(f"{name}: {config['architecture']}, labels per output: {outputs}")
