"""The demo's photos: what a person would know of each, and what is true of it.

What is true was written down before any prediction was looked at. `benchmarks/demo_photos.py`
has more photos of this kind, and scores all of them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feedback_adapter.evidence.base import Evidence

ALWAYS_UNCLEAR = (
    "photo picture color colorful bright large big small little huge look view number "
    "left right back set show body object make area distance day young old adult day "
    "lot reach rest ready enjoy long short tall outdoor outdoors line edge lay"
)
"""Words that are said of almost any photo, or of none."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo that ships inside a Python package.

    Args:
        package: The package.
        file: Its path there.
        licence: Its licence, and who made it.
        known: What a person would know before looking closely: label and 1 or 0.
        true: The other labels that are true of it, separated by spaces (`_` within a label).
        unclear: Labels about which people could disagree, which count neither way.
        coarse: A coarse class that a person would know.
        caption: What a person would write below the photo; it is told instead of `known`.
        strategy: How it is refined; `"auto"` is the checkpoint's own.
        checkpoint: Whose labels these are.
        told: What is known, in a sentence.
    """

    package: str
    file: str
    licence: str
    known: dict[str, int]
    true: str
    unclear: str
    coarse: str | None = None
    caption: str = ""
    strategy: str = "newton"
    checkpoint: str = "caption-words-lite0"
    told: str = ""

    @property
    def path(self) -> Path | None:
        """Where it is, or nothing if its package isn't installed."""
        spec = importlib.util.find_spec(self.package)
        places = spec.submodule_search_locations if spec else None
        return Path(places[0]) / self.file if places else None

    def evidence(self) -> Evidence:
        """What is known, as evidence."""
        from feedback_adapter.evidence.coarse import Coarse
        from feedback_adapter.evidence.labels import Labels
        from feedback_adapter.evidence.text import Text

        if self.caption:
            return Text(self.caption)
        return Labels(self.known) if self.coarse is None else Coarse(self.coarse)

    def truth(self, labels: Iterable[str]) -> dict[str, bool]:
        """Which labels hold, of those that aren't told and can be judged."""
        true = _labels(self.true)
        left_out = self.known.keys() | (_labels(self.unclear) | _labels(ALWAYS_UNCLEAR)) - true
        return {label: label in true for label in labels if label not in left_out}


def _labels(text: str) -> set[str]:
    return {label.replace("_", " ") for label in text.split()}


PHOTOS = (
    Photo(
        "skimage",
        "data/astronaut.png",
        "public domain, NASA",
        {"woman": 1},
        "wear white black person lady female smile orange suit uniform hair haired face mouth eye "
        "ear head arm red blue helmet background pose gear outfit clothes clothing stripe adult",
        "blond blonde brown costume sit stand hold camera toy hat grey gray stare watch glass "
        "metal golden tan hand purple dark",
        told="Known: a woman, since the caption names her",
    ),
    Photo(
        "skimage",
        "data/brick.png",
        "CC0, CC0 Textures",
        {"brick": 1},
        "wall dark grey gray",
        "black white stone sidewalk building street ground concrete floor road stripe",
        caption="A wall of grey bricks.",
        strategy="auto",
        told="Known: its caption, “A wall of grey bricks”",
    ),
    Photo(
        "skimage",
        "data/rocket.jpg",
        "CC0, SpaceX",
        {},
        "missile",
        "projectile",
        coarse="vehicle",
        checkpoint="imagenet-lite0",
        told="Known: a vehicle, since it is about to fly",
    ),
)
"""Of the words that move most on the first two, at least three quarters move the right way, and
mean average precision rises; the page of results says how often that is so. ImageNet's class for a
rocket is `missile` ("a rocket carrying a warhead")."""
