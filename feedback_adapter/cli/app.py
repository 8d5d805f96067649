"""The typer application, and how errors are shown.

The modules of the commands import the library inside their functions: `--help` needs none of it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.text import Text

from feedback_adapter.cli import demo, labels, plugins, refine, sites, zoo
from feedback_adapter.cli.commands import WithPlugins
from feedback_adapter.errors import FeedbackAdapterError

USAGE: type[Exception] = typer.BadParameter.__mro__[1]
"""click's UsageError, of which typer may have a copy of its own: a word that no command takes."""

app = typer.Typer(
    name="feedback-adapter",
    cls=WithPlugins,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(refine.refine)
app.command("labels")(labels.list_labels)
app.command()(sites.sites)
app.command("plugins")(plugins.list_plugins)
app.add_typer(zoo.app, name="zoo")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"feedback-adapter {version('feedback-adapter')}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Say what you already know about an image; get better predictions of the rest."""


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    if sys.stdout is None:  # closed by the shell, as in `... >&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the hub's client warns of each try
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it can't show, it shows as \u...
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():  # of what a photo's file has wrong, its pixels being right
            warnings.filterwarnings("ignore", module=r"PIL\.")
            code = app(standalone_mode=False)
        sys.stdout.flush()
    except FeedbackAdapterError as error:
        code = _mistake(str(error))
    except USAGE as error:
        code = _mistake(_usage(error))
    except OSError as error:
        # Whoever reads has seen enough, as in `... | head`: nothing to complain of.
        code = _mistake("", code=1) if error.errno == errno.EPIPE else _mistake(_system(error))
    except (KeyboardInterrupt, typer.Abort):
        code = _mistake("Stopped.", code=130)
    if code:
        sys.exit(code)


def _mistake(message: str, code: int = 2) -> int:
    """Say on one line what went wrong, unless it is said already."""
    _close(sys.stdout)
    line = " ".join(part.strip() for part in message.splitlines() if part.strip())
    if line:
        said = Text.assemble(("Error:", "bold red"), f" {line}")  # it may hold [brackets]
        with contextlib.suppress(OSError):  # nowhere to say it: the exit code must do
            Console(stderr=True).print(said, highlight=False, soft_wrap=True)
    return code


def _usage(error: Exception) -> str:
    message: str = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    context = getattr(error, "ctx", None)
    if not message or context is None:  # empty where help was shown instead
        return message
    invalid = getattr(error.__cause__, "errors", list)()  # typer's message leaves out the word
    given = f" Given: {invalid[0]['input']!r}." if invalid else ""
    end = "" if message.endswith("?") else "."
    return f"{message.rstrip('.')}{end}{given} See {context.command_path} --help."


def _system(error: OSError) -> str:
    """What the system said of a file, a folder, the disk or the network, in a sentence."""
    if error.filename is None:
        return f"What was asked for can't be read or written: {error.strerror or error}."
    return (
        f"{str(error.filename)!r} can't be used: {error.strerror}. "
        "Name another one, or look who may use it and whether there is room."
    )


def _close(stream: TextIO) -> None:
    """Write what is left, or give it up: Python would try and fail again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
