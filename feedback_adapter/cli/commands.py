"""Commands of plugins: entry points of the group `feedback_adapter_commands`, each a function.

A plugin's command is imported when it is called, and not to be listed: `feedback-adapter --help`
stays fast, and a plugin that fails can only break its own command.
"""

from __future__ import annotations

import contextlib
import sys
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from feedback_adapter.errors import PluginError, did_you_mean
from feedback_adapter.installed import entry_points, origin, reason

GROUP = "feedback_adapter_commands"


class Commands(TyperGroup):
    """Commands; a word that is none of them is answered with those that are near."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command to run."""
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            near = did_you_mean(word, self.list_commands(ctx), show=20)
            ctx.fail(f"No such command {word!r}. {near}")
        return super().resolve_command(ctx, args)


class WithPlugins(Commands):
    """The commands of the library, and those that installed distributions add."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The library's own commands first. A plugin can't replace one of them."""
        own = super().list_commands(ctx)
        return [*own, *sorted(set(_points()) - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command to list: of a plugin's, only its name and what its distribution is."""
        own = super().get_command(ctx, cmd_name)
        points = _points().get(cmd_name)
        if own is not None or not points:
            return own
        return TyperCommand(cmd_name, help=f"Added by {' and '.join(map(_origin, points))}.")

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command to run: here a plugin's is imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name not in self.commands and command is not None:
            command = load(name)
        return name, command, rest


def load(name: str) -> Any:
    """Import a plugin's command, which one distribution must add, as what typer makes of it."""
    points = _points().get(name, [])
    if len(points) != 1:
        found = " and ".join(map(_origin, points)) or "no installed distribution"
        raise PluginError(
            f"The command {name!r} must come from one distribution, and comes from {found}. "
            "Install or uninstall until one is left."
        )
    app = typer.Typer(
        add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is nobody's output
            function = points[0].load()
        if not callable(function):
            raise TypeError(f"it is a {type(function).__name__} and not a function")
        app.command(name)(function)
        return typer.main.get_command(app)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        raise PluginError(
            f"The command {name!r} of {_origin(points[0])} can't be loaded: "
            f"{reason(error)}. Fix or uninstall that distribution."
        ) from error


def _points() -> dict[str, list[EntryPoint]]:
    """The entry points of every command's name: more than one is a mistake."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _origin(point: EntryPoint) -> str:
    return origin(point)[0].replace("?", "an unknown distribution")
