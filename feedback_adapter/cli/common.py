"""What several commands share."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from feedback_adapter.errors import EvidenceError, OptionsError

if TYPE_CHECKING:
    from rich.progress import Progress

    from feedback_adapter.evidence.base import Evidence

__all__ = ["console", "options_of", "print_json", "progress_bar", "said"]

console = Console()


def print_json(value: Any) -> None:
    """One JSON object on standard output, nothing else."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def progress_bar() -> Progress:
    """A progress bar on standard error, so that standard output can be piped."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def said(
    know: list[str],
    know_not: list[str],
    evidence: list[str],
    coarse: list[str] | None = None,
    text: list[str] | None = None,
) -> Evidence:
    """What `--know`, `--know-not`, `--know-coarse`, `--text` and `--evidence` express.

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
        parts.append(spec.parse(value))
    if not parts:
        raise EvidenceError(
            "Nothing is known: say something with --know, --know-not, --know-coarse, --text or "
            "--evidence."
        )
    return parts[0] if len(parts) == 1 else All(parts)


def options_of(items: list[str]) -> dict[str, Any]:
    """Strategy options from `--option name=value`; values are read as JSON where they can be.

    Raises:
        OptionsError: Not of that form.
    """
    options: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise OptionsError(f"--option {item!r} must be name=value, such as steps=20.")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options
