"""`feedback-adapter demo`: predictions on real photos get better, in one command."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_adapter.cli.common import check_place, console, print_json
from feedback_adapter.errors import DataError

if TYPE_CHECKING:
    from feedback_adapter.refinement import Change, Refinement

__all__ = ["demo"]

CHECKPOINT = "caption-words-lite0"


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo that ships inside a Python package, and what a person would know of it."""

    package: str
    file: str
    known: dict[str, int]
    who: str


PHOTOS = (
    Photo("skimage", "data/astronaut.png", {"woman": 1}, "The caption names her: a woman"),
    Photo("skimage", "data/camera.png", {"camera": 1}, "The file is called camera"),
)
"""Photos of which at least three quarters of the ten words that move most move the right way;
`benchmarks/demo_photos.py` says so, and how it goes for the others."""

STRATEGY = "newton"
"""Feedback alone, without statistics of which words go together: what this library is about."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """See predictions on real photos get better because something is known."""
    import feedback_adapter as fa

    out.mkdir(parents=True, exist_ok=True)
    check_place(out / "demo.png", "--out")
    adapter = fa.load(CHECKPOINT)
    assert adapter.transform is not None, "the zoo's checkpoints say how they see photos"
    described: list[dict[str, object]] = []
    for photo in PHOTOS:
        path = _find(photo)
        result = adapter.refine(
            adapter.transform.open(path), fa.Labels(photo.known), strategy=STRATEGY
        )
        picture = result.plot(out / f"{path.stem}.png", title=f"{photo.who}.")
        sentence = _sentence(photo.known, result)
        if json:
            entry = result.to_dict(8)
            described.append(
                {"photo": path.name, "why": sentence, "picture": str(picture), **entry}
            )
            continue
        console.print()
        console.print(result.rich_table(8, title=f"{path.name}: {photo.who.lower()}"))
        console.print(sentence, highlight=False)
        console.print(f"Picture: {picture}", highlight=False)
    if json:
        print_json({"checkpoint": CHECKPOINT, "photos": described})


def _find(photo: Photo) -> Path:
    spec = importlib.util.find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "The demo's photos come with scikit-image: pip install 'feedback-adapter[demo]'."
        )
    return Path(spec.submodule_search_locations[0]) / photo.file


def _sentence(known: dict[str, int], result: Refinement) -> str:
    said = _and([label if value else f"no {label}" for label, value in known.items()])
    moved = [change for change in result.changes(0, 5) if not change.known]
    up = _and([_move(change) for change in moved if change.after > change.before])
    down = _and([_move(change) for change in moved if change.after < change.before])
    what = " and ".join(filter(None, (up and f"raised {up}", down and f"lowered {down}")))
    return (
        f"Knowing {said}, the feedback changed the activation at {', '.join(result.pivots)} until "
        f"the network agreed; that {what}. No weight was touched."
    )


def _move(change: Change) -> str:
    return f"{change.label} ({change.before:.0%} → {change.after:.0%})"


def _and(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))
