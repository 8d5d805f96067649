"""The directive `command-line`: the help texts of all commands, as the program prints them."""

from __future__ import annotations

from collections.abc import Iterator

import click
import typer.main
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from feedback_adapter.cli import app as program


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with the words that call it."""
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from commands(child, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command


class CommandLine(SphinxDirective):
    """One section for each command."""

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for path, command in commands(typer.main.get_command(program), "feedback-adapter"):
            section = nodes.section(ids=[nodes.make_id(path)])
            context = click.Context(command, info_name=path, terminal_width=88, max_content_width=88)
            text = click.Command.get_help(command, context)
            section += nodes.title(text=path)
            section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
