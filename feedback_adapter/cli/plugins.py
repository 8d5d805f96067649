"""`feedback-adapter plugins`: what is installed, and what failed."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from feedback_adapter.cli.common import print_json, print_table


def list_plugins(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List plugins and what they add."""
    from rich.markup import escape
    from rich.table import Table

    from feedback_adapter.plugins import plugins

    infos = plugins().infos()
    if json:
        print_json({"plugins": [dataclasses.asdict(info) for info in infos]})
        return
    table = Table("plugin", "distribution", "version", "status", "adds")
    for info in infos:
        adds = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in info.provides.items())
        style = "red" if info.status == "FAILED" else ""
        cells = info.name, info.distribution, info.version, info.status, info.reason or adds
        table.add_row(*map(escape, cells), style=style)
    print_table(table)
