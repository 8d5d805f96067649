"""The typer application, and how errors are shown.

The modules of the commands import the library inside their functions: `--help` needs none of it.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.text import Text

from feedback_adapter.cli import demo, plugins, refine, sites, zoo
from feedback_adapter.cli.commands import WithPlugins
from feedback_adapter.errors import FeedbackAdapterError

__all__ = ["app", "main"]

app = typer.Typer(
    name="feedback-adapter",
    help="Say what you already know about an image; get better predictions of the rest.",
    cls=WithPlugins,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(refine.refine)
app.command()(sites.sites)
app.command("plugins")(plugins.list_plugins)
app.add_typer(zoo.app, name="zoo")


def main() -> None:
    """Run the command line; a user's mistake is one message, not a traceback."""
    try:
        app()
    except FeedbackAdapterError as error:
        said = Text.assemble(("Error:", "bold red"), f" {error}")  # a message may hold [brackets]
        Console(stderr=True).print(said, highlight=False, soft_wrap=True)
        sys.exit(2)
