"""`feedback-adapter demo`: predictions on real photos get better, in one command."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_adapter.cli.common import check_place, console, print_json, print_table
from feedback_adapter.cli.photos import PHOTOS, Photo
from feedback_adapter.errors import DataError

if TYPE_CHECKING:
    from feedback_adapter.refinement import Change, Refinement

MOVES, TOLD = 10, 4
"""How many labels are shown at most: of those that moved, and of those that are told."""

LEAST = 0.005
"""Smaller moves of a probability aren't worth a line."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """See predictions on real photos get better because something is known."""
    import feedback_adapter as fa
    from feedback_adapter.changes import moved_right, table_of
    from feedback_adapter.plotting import plot_changes

    out.mkdir(parents=True, exist_ok=True)
    check_place(out / "demo.png", "--out")
    described: list[dict[str, Any]] = []
    for photo in PHOTOS:
        path = photo.path
        if path is None:
            raise DataError(
                "The demo's photos come with scikit-image: pip install 'feedback-adapter[demo]'."
            )
        adapter = fa.load(photo.checkpoint)
        assert adapter.transform is not None, "the zoo's checkpoints say how they see photos"
        result = adapter.refine(
            adapter.transform.open(path), photo.evidence(), strategy=photo.strategy
        )
        truth = photo.truth(adapter.labels)
        changes = _shown(result, truth)
        assert result.images is not None, "they are photos"
        picture = plot_changes(
            changes, out / f"{path.stem}.png", photo=result.images[0], top=MOVES,
            title=f"{photo.told}.", several=False, truth=truth,
        )  # fmt: skip
        sentence = _sentence(photo, result, changes, truth)
        if json:
            told: dict[str, Any] = {
                "photo": path.name,
                "checkpoint": photo.checkpoint,
                "strategy": result.strategy,
                "why": sentence,
            }
            moves = [
                dataclasses.asdict(change) | {"right": moved_right(change, truth)}
                for change in changes
            ]
            described.append(told | {"picture": str(picture), "predictions": moves})
            continue
        console.print()
        console.print(f"{path.name}, {photo.checkpoint}: {photo.told}.", highlight=False)
        print_table(table_of(changes, "", several=False, truth=truth))
        console.print(sentence, highlight=False)
        console.print(f"Picture: {picture}", highlight=False, soft_wrap=True)
    if json:
        print_json({"photos": described})


def _shown(result: Refinement, truth: Mapping[str, bool]) -> list[Change]:
    """What is told, and of the labels that can be judged those that moved most."""
    changes = [c for c in result.changes(0, None) if abs(c.after - c.before) >= LEAST]
    told = sorted((c for c in changes if c.known), key=lambda c: -abs(c.after - c.before))
    return told[:TOLD] + [c for c in changes if not c.known and c.label in truth][:MOVES]


def _sentence(
    photo: Photo, result: Refinement, changes: Sequence[Change], truth: Mapping[str, bool]
) -> str:
    from feedback_adapter.changes import moved_right

    said = [label if value else f"no {label}" for label, value in photo.known.items()]
    told = f"that it is a {photo.coarse}" if photo.coarse else _and(said)
    told = "its caption" if photo.caption else told
    moved = [change for change in changes if not change.known]
    up = _and([_move(change) for change in moved[:5] if change.after > change.before])
    down = _and([_move(change) for change in moved[:5] if change.after < change.before])
    what = " and ".join(filter(None, (up and f"raised {up}", down and f"lowered {down}")))
    marks = [moved_right(change, truth) for change in moved]
    how = "the other words follow from the network's output and from how often words go together"
    if result.pivots:
        sites = ", ".join(result.pivots)
        how = f"the feedback changed the activation at {sites} until the network agreed"
    return (
        f"Knowing {told}, {how}; that {what}. No weight was touched. Moves of labels that can be "
        f"judged: {marks.count(True)} right, {marks.count(False)} wrong."
    )


def _move(change: Change) -> str:
    return f"{change.label} ({change.before:.0%} to {change.after:.0%})"


def _and(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))
