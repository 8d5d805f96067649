"""What installed distributions add, and what to say of it where it fails."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group, sorted by name and distribution."""
    found = importlib.metadata.entry_points(group=group)
    return sorted(found, key=lambda point: (point.name, *origin(point)))


def origin(point: EntryPoint) -> tuple[str, str]:
    """The name and the version of the distribution that an entry point comes with, "?" if none."""
    distribution = point.dist
    if distribution is None:
        return "?", "?"
    return str(distribution.name or "?"), str(distribution.version or "?")


def reason(error: BaseException) -> str:
    """What an error says, at most 500 characters, whatever somebody else's error is like."""
    try:
        text = str(error)
    except BaseException:  # an error of somebody else's can do anything here
        text = "(its text can't be shown)"
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {text:.500}"
