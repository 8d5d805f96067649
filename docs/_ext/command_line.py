"""The directive `command-line`: the help text of every command, as the program prints it."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.core import TyperGroup
from typer.testing import CliRunner

from feedback_adapter.cli import app as program


def commands(group: TyperGroup) -> Iterator[list[str]]:
    """Yield the words that call each command, plugins' commands included."""
    for name in group.list_commands(typer.Context(group)):
        command = group.commands.get(name)
        if isinstance(command, TyperGroup):
            yield from ([name, *words] for words in commands(command))
        else:
            yield [name]


class CommandLine(SphinxDirective):
    """One section for each command."""

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for words in commands(typer.main.get_command(program)):
            result = CliRunner().invoke(program, [*words, "--help"], env={"COLUMNS": "88"})
            if result.exit_code:
                raise self.severe(f"{words} --help failed: {result.output}")
            text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
            sections.append(
                nodes.section(
                    "",
                    nodes.title(text=" ".join(words)),
                    nodes.literal_block(text, text, language="text"),
                    ids=[nodes.make_id("-".join(words))],
                )
            )
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
