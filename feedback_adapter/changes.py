"""What a refinement did to one image's predictions, and a table of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Change:
    """One prediction of one image, before and after.

    Args:
        output: Name of the output.
        label: Name of the variable.
        before: Probability without evidence, in [0, 1].
        after: Probability with evidence, in [0, 1].
        known: Whether the evidence says something about it.
        present: Whether the evidence says that it holds; `None` where it isn't known.
    """

    output: str
    label: str
    before: float
    after: float
    known: bool
    present: bool | None = None

    @property
    def said(self) -> str:
        """What is known of it, in a word or two; empty where nothing is."""
        if not self.known:
            return ""
        return "known absent" if self.present is False else "known"


@dataclasses.dataclass(frozen=True)
class MapChange(Change):
    """One label of one image's map: its share of the pixels, before and after.

    Args:
        pixels: At how many pixels it is known whether the label is there.
        nowhere: Whether it is known to be at no pixel.
    """

    pixels: int = 0
    nowhere: bool = False

    @property
    def said(self) -> str:
        """See `Change.said`."""
        if self.nowhere or not self.pixels:
            return super().said
        return f"{self.pixels} pixel{'s' * (self.pixels > 1)} known"


@dataclasses.dataclass(frozen=True)
class Doubt:
    """Something that was told of an image and is believed to be wrong.

    Args:
        image: Which image of the batch.
        output: Name of the output.
        label: Name of the variable.
        told: Whether it was told to be present.
        probability: That this is wrong, above 0.5.
    """

    image: int
    output: str
    label: str
    told: bool
    probability: float


def changes_between(
    output: str,
    labels: Sequence[str],
    before: Tensor,
    after: Tensor,
    known: Tensor,
    present: Tensor,
) -> list[Change]:
    """What a refinement did to each label of one image.

    Probabilities and masks are (labels,): which are known, and which of them are known to hold.
    """
    columns = (before.tolist(), after.tolist(), known.tolist(), present.tolist())
    return [
        Change(output, label, old, new, told, holds if told else None)
        for label, old, new, told, holds in zip(labels, *columns, strict=True)
    ]


def moved_right(change: Change, truth: Mapping[str, bool]) -> bool | None:
    """Whether a prediction moved towards the truth; `None` where that isn't known or it is told."""
    if change.known or change.label not in truth:
        return None
    return (change.after > change.before) == truth[change.label]


def table_of(
    changes: Sequence[Change],
    title: str,
    *,
    several: bool,
    truth: Mapping[str, bool] | None = None,
    caption: str | None = None,
) -> Table:
    """A table of changes for a rich console, in their order.

    Labels have their output's name with them where there are `several` outputs. With the `truth`,
    moves are marked as right or wrong; see `moved_right`.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(title),
        title_justify="left",
        caption=None if caption is None else escape(caption),
        caption_justify="left",
    )
    table.add_column("label", overflow="fold")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    marks = {True: "right", False: "wrong", None: ""}
    for change in changes:
        moved = change.after - change.before
        right = moved_right(change, truth or {})
        good = moved > 0 if truth is None else right
        style = "cyan" if change.known else {True: "green", False: "red", None: ""}[good]
        table.add_row(
            escape(f"{change.output}/{change.label}" if several else change.label),
            f"{change.before:6.1%}",
            f"{change.after:6.1%}",
            f"{moved * 100:+.1f}",
            change.said or marks[right],
            style=style,
        )
    return table
