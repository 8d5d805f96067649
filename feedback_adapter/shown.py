"""What people read of a result: its changes, tables, pictures, and files."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from feedback_adapter.changes import Change, changes_between, table_of
from feedback_adapter.errors import OptionsError
from feedback_adapter.export import COLUMNS, captions_of, csv_of, frame_of
from feedback_adapter.map_pictures import plot_maps
from feedback_adapter.maps import changes_of, masks_of, pictures_of
from feedback_adapter.options import check, optional, whole
from feedback_adapter.outputs import Outputs
from feedback_adapter.plotting import plot_changes
from feedback_adapter.rows import index_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_MANY = 50
"""More known labels than these are shortened, where a number of predictions is asked for."""


class Shown:
    """The part of a `Refinement` that shows it."""

    outputs_before: Outputs
    outputs_after: Outputs
    losses: Tensor
    steps: Tensor
    status: tuple[str, ...]
    known: dict[str, Tensor]
    present: dict[str, Tensor]
    strategies: tuple[str, ...]
    moved: tuple[tuple[str, ...], ...]
    images: Tensor | None

    def changes(self, image: int = 0, top: int | None = None) -> list[Change]:
        """The predictions of one image, those that moved most first.

        Args:
            image: Which image of the batch.
            top: How many at most; `None` for all. The known ones don't count, but where
                there are hundreds of them, only so many are given too.
        """
        image = index_of(image, len(self.status))
        check(SimpleNamespace(top=top), {"top": optional(whole(0, sys.maxsize))})
        known: list[Change] = []
        unknown: list[Change] = []
        for name, spec in self.outputs_before.specs.items():
            if spec.kind == "tokens":
                continue
            before, after = self.outputs_before[name][image], self.outputs_after[name][image]
            told = self.known[name][image]
            holds = self.present.get(name, self.known[name])[image]
            if spec.kind == "map":
                changes = changes_of(name, spec, before, after, told, holds)
            else:
                old, new = spec.probabilities(before), spec.probabilities(after)
                changes = changes_between(name, spec.labels, old, new, told, holds)
            for change in changes:
                (known if change.known else unknown).append(change)
        unknown.sort(key=lambda change: -abs(change.after - change.before))
        if top is not None and len(known) > max(top, _MANY):  # all but a few of 1,000 classes
            known.sort(key=lambda change: -abs(change.after - change.before))
            known = known[: max(top, 1)]
        return known + unknown[:top]

    def table(self, top: int = 5, image: int | None = None) -> str:
        """A text table of the known labels and of the `top` predictions that moved most."""
        from rich.console import Console

        console = Console(width=88, force_terminal=False, color_system=None)
        with console.capture() as capture:
            for index in range(len(self.steps)) if image is None else [image]:
                console.print(self.rich_table(top, index))
        return capture.get()

    def rich_table(self, top: int = 5, image: int = 0, title: str | None = None) -> Table:
        """The table of one image for a rich console, with a title of your own if you like."""
        image = index_of(image, len(self.status))
        sites = f" at {', '.join(self.moved[image])}" if self.moved[image] else ""
        lines = [f"{self.strategies[image]}{sites}; {self.status[image]}"]
        for said in captions_of(self.outputs_before, self.outputs_after, image).values():
            lines += [f"caption {when}: {text}" for when, text in said.items()]
        return table_of(
            self.changes(image, top),
            title or f"image {image}",
            several=len(self.outputs_before) > 1,
            caption="\n".join(lines),
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row per image and label, as dicts; what `to_frame` and `to_csv` are made of.

        Its keys are `image`, `output`, `label`, `before` and `after` (probabilities; of maps
        shares of the pixels), `known`, `present` (None where it isn't known) and `strategy`.
        """
        return [
            {
                "image": image,
                **{name: getattr(change, name) for name in COLUMNS[1:-1]},
                "strategy": self.strategies[image],
            }
            for image in range(len(self.status))
            for change in self.changes(image)
        ]

    def to_frame(self) -> pd.DataFrame:
        """The `rows` as a pandas data frame.

        Raises:
            MissingPandasError: pandas isn't installed.
        """
        return frame_of(self.rows())

    def to_csv(self, path: str | Path | None = None) -> str:
        """The `rows` as CSV text, which is also written to a file where a path is given.

        Raises:
            OptionsError: The file can't be written.
        """
        text = csv_of(self.rows())
        if path is not None:
            try:
                Path(path).write_text(text, encoding="utf-8", newline="")
            except OSError as error:
                raise OptionsError(f"{str(path)!r} can't be written: {error.strerror}.") from error
        return text

    def to_json(self, top: int | None = None) -> str:
        """Everything as one JSON object; `top` limits the unknown labels per image."""
        return json.dumps(self.to_dict(top), indent=1)

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Everything as plain lists, numbers and strings.

        Masks of maps are run lengths as in COCO, `{"size": [height, width], "counts": [...]}`.
        """
        images: list[dict[str, Any]] = []
        for index in range(len(self.steps)):
            said = captions_of(self.outputs_before, self.outputs_after, index)
            entry = {
                "losses": [round(value, 6) for value in self.losses[:, index].tolist()],
                "strategy": self.strategies[index],
                "pivots": list(self.moved[index]),
                "steps": int(self.steps[index]),
                "status": self.status[index],
                "converged": self.status[index].startswith("converged"),
                "predictions": [dataclasses.asdict(change) for change in self.changes(index, top)],
                **({"captions": said} if said else {}),
                **masks_of(self.outputs_before, self.outputs_after, index),
            }
            images.append(entry)
        pivots = dict.fromkeys(name for names in self.moved for name in names)
        strategies = ", ".join(dict.fromkeys(self.strategies))
        return {"strategy": strategies, "pivots": list(pivots), "images": images}

    def plot(
        self, path: str | Path, top: int = 8, image: int = 0, title: str | None = None
    ) -> Path:
        """Draw one image's photo and its predictions before and after, and save the picture.

        Maps are drawn over the photo: what is seen before and after, and what changed.

        Args:
            path: Where to; the ending says the format (.png, .svg, .pdf).
            top: How many unknown predictions at most.
            image: Which image of the batch.
            title: Heading; by default what is known.

        Returns:
            The path.

        Raises:
            OptionsError: The picture can't be written there, or in that format.
        """
        image = index_of(image, len(self.status))
        photo = None if self.images is None else self.images[image]
        several = len(self.outputs_before) > 1
        maps = pictures_of(self.outputs_before, self.outputs_after, self.known, image)
        if maps:
            every = self.changes(image)
            return plot_maps(maps, every, Path(path), photo=photo, top=top, title=title)
        changes = self.changes(image, top)
        return plot_changes(changes, Path(path), photo=photo, top=top, title=title, several=several)
