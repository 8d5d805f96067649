"""The result of a refinement: predictions before and after, and how it went."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from feedback_adapter.outputs import Outputs

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Change", "Refinement"]

SINGLE = "output"
"""Name of the output of a model that returns one tensor."""


_MANY = 50
"""More known labels than these are shortened, where a number of predictions is asked for."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One prediction of one image, before and after.

    Args:
        output: Name of the output.
        label: Name of the variable.
        before: Probability without evidence, in [0, 1].
        after: Probability with evidence, in [0, 1].
        known: Whether the evidence says something about it.
    """

    output: str
    label: str
    before: float
    after: float
    known: bool


@dataclasses.dataclass(frozen=True)
class Refinement:
    """What came of `Adapter.refine`.

    Args:
        outputs_before: Logits of the plain model.
        outputs_after: Logits after refinement.
        losses: (steps + 1, batch), the evidence loss in nats; the first row is the plain
            model's. An image that has stopped keeps its last value.
        steps: (batch,) int64, how many steps each image took.
        converged: (batch,) bool, whether its loss no longer fell before the steps ran out.
        known: `{output: (batch, labels) bool}`, what the evidence fixes.
        strategy: Name of the strategy.
        pivots: Names of the sites that moved.
        images: (batch, 3, height, width) in [0, 1] for pictures, or `None`.
        trace: `{output: (steps + 1, batch, labels)}` logits after every step, where the
            options asked for it.
        kept: (batch,) int64, which row of `losses` is that of `outputs_after`; `None` for
            the last.
    """

    outputs_before: Outputs
    outputs_after: Outputs
    losses: Tensor
    steps: Tensor
    converged: Tensor
    known: dict[str, Tensor]
    strategy: str = ""
    pivots: tuple[str, ...] = ()
    images: Tensor | None = None
    trace: dict[str, Tensor] | None = None
    kept: Tensor | None = None

    @property
    def before(self) -> Tensor | dict[str, Tensor]:
        """Logits of the plain model: a tensor (batch, labels), or a dict of them."""
        return _as_returned(self.outputs_before)

    @property
    def after(self) -> Tensor | dict[str, Tensor]:
        """Logits after refinement: a tensor (batch, labels), or a dict of them."""
        return _as_returned(self.outputs_after)

    def changes(self, image: int = 0, top: int | None = None) -> list[Change]:
        """The predictions of one image, those that moved most first.

        Args:
            image: Which image of the batch.
            top: How many at most; `None` for all. The known ones don't count, but where
                there are hundreds of them, only so many are given too.
        """
        before, after = self.outputs_before.probabilities(), self.outputs_after.probabilities()
        known: list[Change] = []
        unknown: list[Change] = []
        for name, spec in self.outputs_before.specs.items():
            if spec.kind == "tokens":
                continue
            rows = zip(
                spec.labels,
                before[name][image].tolist(),
                after[name][image].tolist(),
                self.known[name][image].tolist(),
                strict=True,
            )
            for label, old, new, is_known in rows:
                (known if is_known else unknown).append(Change(name, label, old, new, is_known))
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
        """The same for a rich console."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(title or f"image {image}"), title_justify="left")
        table.add_column("label")
        for column in ("before", "after", "change"):
            table.add_column(column, justify="right")
        table.add_column("")
        several = len(self.outputs_before) > 1
        for change in self.changes(image, top):
            moved = change.after - change.before
            style = "cyan" if change.known else "green" if moved > 0 else "red"
            table.add_row(
                escape(f"{change.output}/{change.label}" if several else change.label),
                f"{change.before:6.1%}",
                f"{change.after:6.1%}",
                f"{moved * 100:+.1f}",
                "known" if change.known else "",
                style=style,
            )
        return table

    def to_json(self, top: int | None = None) -> str:
        """Everything as one JSON object; `top` limits the unknown labels per image."""
        return json.dumps(self.to_dict(top), indent=1)

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Everything as plain lists, numbers and strings."""
        images = [
            {
                "losses": [round(value, 6) for value in self.losses[:, index].tolist()],
                "steps": int(self.steps[index]),
                "converged": bool(self.converged[index]),
                "predictions": [dataclasses.asdict(change) for change in self.changes(index, top)],
            }
            for index in range(len(self.steps))
        ]
        return {"strategy": self.strategy, "pivots": list(self.pivots), "images": images}

    def plot(
        self, path: str | Path, top: int = 8, image: int = 0, title: str | None = None
    ) -> Path:
        """Draw one image's photo and its predictions before and after, and save the picture.

        Args:
            path: Where to; the ending says the format (.png, .svg, .pdf).
            top: How many unknown predictions at most.
            image: Which image of the batch.
            title: Heading; by default what is known.

        Returns:
            The path.
        """
        from feedback_adapter.plotting import plot_refinement

        return plot_refinement(self, Path(path), top=top, image=image, title=title)

    @property
    def loss(self) -> Tensor:
        """The evidence loss of what is in `after`, (batch,), in nats."""
        if self.kept is None:
            return self.losses[-1]
        return self.losses.gather(0, self.kept[None])[0]

    @property
    def improved(self) -> Tensor:
        """Whether the evidence loss is lower after than before, (batch,) bool."""
        return torch.lt(self.loss, self.losses[0])


def _as_returned(outputs: Outputs) -> Tensor | dict[str, Tensor]:
    return outputs[SINGLE] if list(outputs) == [SINGLE] else dict(outputs)
