"""An explanation as people read it: a table, a picture, and plain numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from feedback_adapter.explain.picture import draw
from feedback_adapter.explain.where import Maps

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
"""Version of what `Explanation.to_dict` returns."""


@dataclasses.dataclass(frozen=True)
class Contribution:
    """What one piece of evidence did to a prediction.

    Args:
        evidence: The piece of evidence, in a few words.
        log_odds: Its Shapley value: its part of the movement of the log-odds, in nats.
        probability: The same of the movement of the probability, in [-1, 1].
        error: Standard error of `log_odds`; 0 where it is exact.
        left_out: What of the movement is lost if only this piece is left out, in nats. Of two
            pieces that say the same thing, nothing is lost without either.
    """

    evidence: str
    log_odds: float
    probability: float
    error: float
    left_out: float


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Why a prediction of one image moved. `Refinement.explain` makes it.

    Args:
        image: Which image of the batch.
        output: Name of the output.
        label: The label that is explained.
        strategy: Name of the strategy that refined the image.
        before: Log-odds without evidence, in nats. Of a multilabel output this is the logit; of
            a multiclass output log p / (1 - p); of a map the log-odds of the label's mean
            probability over the pixels.
        after: Log-odds with all the evidence.
        contributions: A row for each piece of evidence, those that moved it most first. Their
            `log_odds` sum to `after - before`.
        refinements: How many choices of evidence were refined with.
        maps: Where the network looks; `None` where there is no such map.
        no_maps: Which maps are missing, and why, as a sentence.
        photo: (3, height, width) in [0, 1] for pictures, if there is one.
    """

    image: int
    output: str
    label: str
    strategy: str
    before: float
    after: float
    contributions: tuple[Contribution, ...]
    refinements: int
    maps: Maps | None = dataclasses.field(default=None, repr=False)
    no_maps: str = ""
    photo: Tensor | None = dataclasses.field(default=None, repr=False)

    @property
    def heading(self) -> str:
        """What is explained, in a line."""
        old, new = _sigmoid(self.before), _sigmoid(self.after)
        return f"Why {self.label!r} moved from {old:.1%} to {new:.1%}"

    @property
    def exact(self) -> bool:
        """Whether the contributions are exact, and not estimated from some orders."""
        return all(row.error == 0 for row in self.contributions)

    def table(self) -> str:
        """A text table of the contributions."""
        from rich.console import Console

        console = Console(width=88, force_terminal=False, color_system=None)
        with console.capture() as capture:
            console.print(self.rich_table())
        return capture.get()

    def rich_table(self, title: str | None = None) -> Table:
        """The table for a rich console, with a title of your own if you like."""
        from rich.markup import escape
        from rich.table import Table

        old, new = _sigmoid(self.before), _sigmoid(self.after)
        how = "exact" if self.exact else "estimated, ± one standard error"
        lines = [f"{self.strategy}; Shapley values ({how}) in nats of log-odds"]
        lines += [self.no_maps] if self.no_maps else []
        table = Table(
            title=escape(title or f"{self.heading} in image {self.image}"),
            title_justify="left",
            caption=escape("\n".join(lines)),
            caption_justify="left",
            show_footer=True,
        )
        table.add_column("evidence", "all together", overflow="fold")
        for name, total in (
            ("log-odds", f"{self.after - self.before:+.3f}"),
            ("probability", f"{(new - old) * 100:+.1f}"),
            ("lost without it", ""),
        ):
            table.add_column(name, total, justify="right")
        for row in self.contributions:
            error = "" if self.exact else f" ± {row.error:.3f}"
            table.add_row(
                escape(row.evidence),
                f"{row.log_odds:+.3f}{error}",
                f"{row.probability * 100:+.1f}",
                f"{row.left_out:+.3f}",
                style="green" if row.log_odds > 0 else "red" if row.log_odds < 0 else "",
            )
        return table

    def plot(self, path: str | Path, title: str | None = None) -> Path:
        """Draw what each piece of evidence did, and where the network looks.

        Args:
            path: Where to; the ending says the format (.png, .svg, .pdf).
            title: Heading; by default which label is explained.

        Returns:
            The path.

        Raises:
            OptionsError: The picture can't be written there, or in that format.
        """
        return draw(self, Path(path), title)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the photo as plain lists, numbers and strings.

        `schema` is the version of the form. Log-odds are in nats; `before` and `after` have the
        probability, too. Maps are lists of rows, and `None` where there are none.
        """
        return {
            "schema": SCHEMA,
            "image": self.image,
            "output": self.output,
            "label": self.label,
            "strategy": self.strategy,
            "before": {"log_odds": self.before, "probability": _sigmoid(self.before)},
            "after": {"log_odds": self.after, "probability": _sigmoid(self.after)},
            "exact": self.exact,
            "refinements": self.refinements,
            "contributions": [dataclasses.asdict(row) for row in self.contributions],
            "maps": None if self.maps is None else self.maps.to_dict(),
            "no_maps": self.no_maps,
        }


def _sigmoid(log_odds: float) -> float:
    return float(torch.tensor(log_odds, dtype=torch.float64, device="cpu").sigmoid())
