"""What several commands share."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from feedback_adapter.errors import DataError, EvidenceError, OptionsError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from feedback_adapter.evidence.base import Evidence

__all__ = [
    "check_place",
    "console",
    "options_of",
    "print_json",
    "print_table",
    "progress_bar",
    "said",
]

console = Console()


def print_json(value: Any) -> None:
    """One JSON object on standard output, nothing else.

    Raises:
        DataError: A number isn't finite, which JSON can't say.
    """
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise DataError(
            "The result has numbers that aren't finite, so it can't be written as JSON: look at "
            "it without --json, and use other options or images."
        ) from error
    sys.stdout.write(text + "\n")


NARROW = 60
"""In a terminal of fewer columns, tables have no lines: the room is for what they say."""

LEAST = 36
"""So many columns a table has at least: a terminal of fewer breaks its lines, and loses nothing."""


def print_table(table: Table) -> None:
    """A table on standard output, of which nothing is cut off."""
    for column in table.columns:
        column.overflow = "fold"
    if console.width < NARROW:
        table.box, table.padding, table.pad_edge = None, (0, 1, 0, 0), False
    wide = Console(width=LEAST) if console.width < LEAST else console
    wide.print(table)


def check_place(path: Path, option: str) -> None:
    """Refuse a place for a file before the work is done, rather than after.

    Raises:
        OptionsError: A folder, or a file that can't be written.
    """
    was_there = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise OptionsError(
            f"{option} {str(path)!r} can't be written: {error.strerror}. Name a file in a folder "
            "that is there and that you may write to."
        ) from error
    if not was_there:
        path.unlink()


def progress_bar() -> Progress:
    """A progress bar on standard error, if that is a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    errors = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,  # it would leave empty lines in a file
    )


def said(
    know: list[str],
    know_not: list[str],
    evidence: list[str],
    coarse: list[str] | None = None,
    text: list[str] | None = None,
    others: Sequence[Evidence] = (),
    images: int = 1,
) -> Evidence:
    """What `--know`, `--know-not`, `--know-coarse`, `--text` and `--evidence` express.

    Args:
        know: Labels.
        know_not: Labels.
        evidence: KIND=TEXT.
        coarse: Coarse classes.
        text: Texts.
        others: What is said besides of each image, by `--click` and `--evidence-file`.
        images: Of how many images; what the words say is said of all of them.

    Raises:
        EvidenceError: Nothing is said, a contradiction, or text that can't be read.
    """
    from feedback_adapter.evidence.base import All
    from feedback_adapter.evidence.coarse import parse_coarse
    from feedback_adapter.evidence.labels import Labels
    from feedback_adapter.evidence.text import Text
    from feedback_adapter.plugins import evidence_type

    parts: list[Evidence] = []
    both = sorted(set(know) & set(know_not))
    if both:
        raise EvidenceError(f"Contradiction: {both} are said to be both present and absent.")
    if know or know_not:
        parts.append(Labels({**dict.fromkeys(know, 1), **dict.fromkeys(know_not, 0)}))
    parts += [parse_coarse(name) for name in coarse or []]
    parts += [Text(found) for found in text or []]
    for item in evidence:
        name, equals, value = item.partition("=")
        spec = evidence_type(name)
        if not equals or spec.parse is None:
            how = f"--evidence {name}=TEXT" if spec.parse else "Python"
            raise EvidenceError(f"--evidence {item!r} can't be read: use {how}.")
        if not value.strip():
            raise EvidenceError(f"--evidence {item!r} says nothing: write {name}=TEXT.")
        parts.append(spec.parse(value))
    if images > 1:
        import torch

        parts = [part.take(torch.zeros(images, dtype=torch.long)) for part in parts]
    parts += others
    if not parts:
        raise EvidenceError(
            "Nothing is known: say something with --know, --know-not, --know-coarse, --text, "
            "--click, --evidence or --evidence-file."
        )
    return parts[0] if len(parts) == 1 else All(parts)


def options_of(items: list[str]) -> dict[str, Any]:
    """Strategy options from `--option name=value`; values are read as JSON where they can be.

    Raises:
        OptionsError: Not of that form, said twice, or what another option of the command says.
    """
    from feedback_adapter.adapter import Adapter

    taken = inspect.signature(Adapter.refine).parameters
    options: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise OptionsError(f"--option {item!r} must be name=value, such as steps=20.")
        if name in taken:
            raise OptionsError(
                f"--option {item!r}: {name!r} is no option of a strategy. Photos, what is known, "
                "--strategy and --pivots have words of their own: see --help."
            )
        if name in options:
            raise OptionsError(f"--option {name}=... is said twice: say it once.")
        try:
            options[name] = json.loads(text)
        except (ValueError, RecursionError):
            options[name] = text
    return options
