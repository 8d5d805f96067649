"""Commands of plugins: entry points of the group `feedback_adapter_commands`, each a function."""

from __future__ import annotations

import importlib.metadata

import typer
from rich.console import Console
from rich.text import Text

__all__ = ["GROUP", "add_to"]

GROUP = "feedback_adapter_commands"


def add_to(app: typer.Typer) -> None:
    """Add the commands of all installed distributions; one that fails is named and left out."""
    named = [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    taken = {name.replace("_", "-") for name in named} | {g.name for g in app.registered_groups}
    found = importlib.metadata.entry_points(group=GROUP)
    for point in sorted(found, key=lambda point: point.name):
        try:
            if point.name in taken:
                raise ValueError("there already is a command of that name")
            app.command(point.name)(point.load())
            taken.add(point.name)
        except Exception as error:  # a plugin must not end the program
            origin = point.dist.name if point.dist else "?"
            said = Text.assemble(
                ("Warning:", "bold yellow"),
                f" the command {point.name!r} of {origin!r} failed to load: {error}",
            )
            Console(stderr=True).print(said, highlight=False, soft_wrap=True)
