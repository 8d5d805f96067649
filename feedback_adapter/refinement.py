"""The result of a refinement: predictions before and after, and how it went."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from feedback_adapter.changes import Change, Doubt, changes_between, table_of
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.certain import hold
from feedback_adapter.maps import changes_of, masks_of, pictures_of
from feedback_adapter.outputs import Outputs

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CONVERGED", "Change", "Doubt", "Refinement", "statuses"]

CONVERGED = "converged: the loss no longer falls"
"""Status of an image that was done before the steps ran out."""

_MANY = 50
"""More known labels than these are shortened, where a number of predictions is asked for."""


def statuses(converged: Tensor, otherwise: str) -> tuple[str, ...]:
    """A status per image.

    Args:
        converged: (batch,) bool, whether an image's loss no longer fell.
        otherwise: What to say of the others, with what to try, such as
            `"ran out of steps: try steps=20"`.
    """
    return tuple(CONVERGED if done else otherwise for done in converged.tolist())


@dataclasses.dataclass(frozen=True, repr=False)
class Refinement:
    """What came of `Adapter.refine`. A strategy makes it with `Refinement.of`.

    Args:
        outputs_before: Logits of the unrefined model.
        outputs_refined: Logits of the refined network by itself.
        outputs_after: The refined network's posterior given the evidence, as logits: what is
            certain (confidence 1, a value of 0 or 1) holds in it, what is less certain moves
            `outputs_refined` by its share; see `Evidence.clamp`.
        losses: (steps + 1, batch), the evidence loss in nats of what the network says by itself;
            the first row is the unrefined model's. An image that has stopped keeps its last
            value. Strategies without feedback give the losses of `before` and `after`.
        steps: (batch,) int64, how many steps each image took.
        status: For each image what happened, and what to try where more could be had:
            `"converged: ..."`, or such as `"ran out of steps: try steps=20"`.
        known: `{output: (batch, labels) bool}`, what the evidence fixes; of maps (batch, labels,
            height, width).
        strategies: (batch,) names: of each image's strategy.
        moved: (batch,): the names of the sites that moved for each image.
        images: (batch, 3, height, width) in [0, 1] for pictures, or `None`.
        trace: `{output: (steps + 1, batch, labels)}` logits after every step, where the
            options asked for it.
        kept: (batch,) int64, which row of `losses` is that of `outputs_refined`; `None` for
            the last.
        present: `{output: mask}` of the same form as `known`: what is known to hold; the rest of
            what is known is known not to.
        doubts: `{output: (batch, labels)}`, the probability that what was told of a label is
            wrong, where the evidence allows for mistakes; see `doubted`.

    Example:
        >>> import torch, feedback_adapter as fa
        >>> adapter = fa.wrap(torch.nn.Linear(2, 3), labels=["dog", "snow", "ball"])
        >>> result = adapter.refine(torch.ones(4, 2), fa.Labels({"dog": 1}), pivots="input")
        >>> result
        Refinement(4 images, strategy='newton', pivots=('input',), output: (4, 3))
        >>> len(result.status), tuple(result.after.shape)
        (4, (4, 3))
    """

    outputs_before: Outputs
    outputs_refined: Outputs
    outputs_after: Outputs
    losses: Tensor
    steps: Tensor
    status: tuple[str, ...]
    known: dict[str, Tensor]
    strategies: tuple[str, ...] = ()
    moved: tuple[tuple[str, ...], ...] = ()
    images: Tensor | None = None
    trace: dict[str, Tensor] | None = None
    kept: Tensor | None = None
    doubts: dict[str, Tensor] = dataclasses.field(default_factory=dict[str, Tensor])
    present: dict[str, Tensor] = dataclasses.field(default_factory=dict[str, Tensor])

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        before: Outputs,
        refined: Outputs,
        *,
        status: str | tuple[str, ...],
        after: Outputs | None = None,
        losses: Tensor | None = None,
        steps: Tensor | int = 1,
        pivots: tuple[str, ...] = (),
        trace: dict[str, Tensor] | None = None,
        kept: Tensor | None = None,
    ) -> Refinement:
        """Make the result of a strategy: what can be worked out is worked out here.

        Args:
            evidence: What is known, bound.
            before: Outputs of the unrefined model.
            refined: Outputs of the refined network by itself.
            status: One for all images, or one per image.
            after: What follows for each prediction, where the strategy works that out from the
                evidence itself. By default it is `evidence.clamp(refined)`. What is certain is
                held in it in any case.
            losses: (steps + 1, batch); by default those of `before` and of `after`, if that is
                given, or of `refined`.
            steps: (batch,) int64, or one number for all images.
            pivots: Names of the sites that moved.
            trace: Logits after every step, where the options asked for it.
            kept: Which row of `losses` belongs to `refined`; by default the last.
        """
        if losses is None:
            losses = torch.stack([evidence.loss(before), evidence.loss(after or refined)])
        losses = losses.detach()
        if not isinstance(steps, Tensor):
            steps = torch.full((before.batch,), steps, dtype=torch.long, device=losses.device)
        if isinstance(status, str):
            status = (status,) * before.batch
        known = evidence.known(before.checked())
        if evidence.silence is not None:
            said = losses[0] != 0  # of the image, if only that it agrees
            for mask in known.values():
                said = said | mask.flatten(1).any(1)
            pairs = zip(status, said.tolist(), strict=True)
            status = tuple(what if is_said else evidence.silence for what, is_said in pairs)
        posterior = _posterior(evidence, refined, after)
        return cls(
            before, refined, posterior, losses, steps, status, known,
            moved=(pivots,) * before.batch, trace=trace, kept=kept,
            doubts=evidence.doubts(), present=evidence.present(before),
        )  # fmt: skip

    @classmethod
    def cat(cls, parts: Sequence[Refinement]) -> Refinement:
        """The results of several batches as that of one, in their order.

        Where the parts took different numbers of steps, the shorter ones' losses and traces are
        filled up with their last row.
        """
        rows = max(len(part.losses) for part in parts)
        pictures = [part.images for part in parts if part.images is not None]
        same_size = len({tuple(images.shape[1:]) for images in pictures}) == 1
        traces = [part.trace for part in parts if part.trace is not None]
        ends = [
            torch.full_like(part.steps, len(part.losses) - 1) if part.kept is None else part.kept
            for part in parts
        ]
        return cls(
            outputs_before=Outputs.cat([part.outputs_before for part in parts]),
            outputs_refined=Outputs.cat([part.outputs_refined for part in parts]),
            outputs_after=Outputs.cat([part.outputs_after for part in parts]),
            losses=torch.cat([_filled(part.losses, rows) for part in parts], 1),
            steps=torch.cat([part.steps for part in parts]),
            status=tuple(said for part in parts for said in part.status),
            known={name: torch.cat([p.known[name] for p in parts]) for name in parts[0].known},
            strategies=tuple(name for part in parts for name in part.strategies),
            moved=tuple(names for part in parts for names in part.moved),
            images=torch.cat(pictures) if same_size and len(pictures) == len(parts) else None,
            trace={n: torch.cat([_filled(t[n], rows) for t in traces], 1) for n in traces[0]}
            if traces and len(traces) == len(parts)
            else None,
            kept=None if all(part.kept is None for part in parts) else torch.cat(ends),
            doubts={
                name: torch.cat([p.doubts.get(name, p.known[name] * 0.0) for p in parts])
                for name in dict.fromkeys(name for part in parts for name in part.doubts)
            },
            present={n: torch.cat([p.present[n] for p in parts]) for n in parts[0].present},
        )

    def take(self, rows: Tensor) -> Refinement:
        """The result of some of the images, by index (k,), in that order."""
        return dataclasses.replace(
            self,
            outputs_before=self.outputs_before.take(rows),
            outputs_refined=self.outputs_refined.take(rows),
            outputs_after=self.outputs_after.take(rows),
            losses=self.losses[:, rows],
            steps=self.steps[rows],
            status=tuple(self.status[row] for row in rows.tolist()),
            strategies=tuple(self.strategies[row] for row in rows.tolist()),
            moved=tuple(self.moved[row] for row in rows.tolist()),
            known={name: mask[rows] for name, mask in self.known.items()},
            images=None if self.images is None else self.images[rows.to(self.images.device)],
            trace=None if self.trace is None else {n: t[:, rows] for n, t in self.trace.items()},
            kept=None if self.kept is None else self.kept[rows],
            doubts={name: doubt[rows] for name, doubt in self.doubts.items()},
            present={name: mask[rows] for name, mask in self.present.items()},
        )

    @property
    def strategy(self) -> str:
        """Name of the strategy; where images of a batch were refined by several, all of them."""
        return ", ".join(dict.fromkeys(self.strategies))

    @property
    def pivots(self) -> tuple[str, ...]:
        """Names of the sites that moved, for any image."""
        return tuple(dict.fromkeys(name for names in self.moved for name in names))

    @property
    def before(self) -> Tensor | dict[str, Tensor]:
        """Logits of the unrefined model: a tensor (batch, labels), or a dict of them."""
        return self.outputs_before.as_returned()

    @property
    def refined(self) -> Tensor | dict[str, Tensor]:
        """Logits of the refined network by itself, in the form of `after`."""
        return self.outputs_refined.as_returned()

    @property
    def after(self) -> Tensor | dict[str, Tensor]:
        """Logits of the posterior given the evidence: (batch, labels), or a dict of them."""
        return self.outputs_after.as_returned()

    @property
    def loss(self) -> Tensor:
        """The evidence loss that was reached, (batch,), in nats; see `losses`."""
        if self.kept is None:
            return self.losses[-1]
        return self.losses.gather(0, self.kept[None])[0]

    @property
    def improved(self) -> Tensor:
        """Whether the evidence loss that was reached is lower than before, (batch,) bool."""
        return torch.lt(self.loss, self.losses[0])

    @property
    def converged(self) -> Tensor:
        """Deprecated: whether each image was done before the steps ran out, (batch,) bool.

        Use `status`, which also says what to try.
        """
        warnings.warn(
            "Refinement.converged goes in the next release: use Refinement.status, which says "
            "for each image what happened and what to try.",
            DeprecationWarning,
            stacklevel=2,
        )
        done = [said.startswith("converged") for said in self.status]
        return torch.tensor(done, dtype=torch.bool, device=self.steps.device)

    @property
    def doubted(self) -> list[Doubt]:
        """What was told and is believed to be wrong, the most doubtful first.

        Empty where evidence is certain: tell labels with `wrong=` to have them checked.
        """
        found: list[Doubt] = []
        for name, doubt in self.doubts.items():
            labels = self.outputs_before.specs[name].labels
            believed = self.outputs_after.probabilities()[name] > 0.5
            for image, column in (doubt > 0.5).nonzero().tolist():
                told = not bool(believed[image, column])
                probability = float(doubt[image, column])
                found.append(Doubt(image, name, labels[column], told, probability))
        return sorted(found, key=lambda item: -item.probability)

    def changes(self, image: int = 0, top: int | None = None) -> list[Change]:
        """The predictions of one image, those that moved most first.

        Args:
            image: Which image of the batch.
            top: How many at most; `None` for all. The known ones don't count, but where
                there are hundreds of them, only so many are given too.
        """
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
        changes = self.changes(image, top)
        return table_of(changes, title or f"image {image}", several=len(self.outputs_before) > 1)

    def to_json(self, top: int | None = None) -> str:
        """Everything as one JSON object; `top` limits the unknown labels per image."""
        return json.dumps(self.to_dict(top), indent=1)

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Everything as plain lists, numbers and strings.

        Masks of maps are run lengths as in COCO, `{"size": [height, width], "counts": [...]}`.
        """
        images = [
            {
                "losses": [round(value, 6) for value in self.losses[:, index].tolist()],
                "strategy": self.strategies[index],
                "pivots": list(self.moved[index]),
                "steps": int(self.steps[index]),
                "status": self.status[index],
                "converged": self.status[index].startswith("converged"),
                "predictions": [dataclasses.asdict(change) for change in self.changes(index, top)],
                **masks_of(self.outputs_before, self.outputs_after, index),
            }
            for index in range(len(self.steps))
        ]
        return {"strategy": self.strategy, "pivots": list(self.pivots), "images": images}

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
        """
        from feedback_adapter.map_pictures import plot_maps
        from feedback_adapter.plotting import plot_changes

        photo = None if self.images is None else self.images[image]
        several = len(self.outputs_before) > 1
        maps = pictures_of(self.outputs_before, self.outputs_after, self.known, image)
        if maps:
            every = self.changes(image)
            return plot_maps(maps, every, Path(path), photo=photo, top=top, title=title)
        changes = self.changes(image, top)
        return plot_changes(changes, Path(path), photo=photo, top=top, title=title, several=several)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n}: {tuple(v.shape)}" for n, v in self.outputs_after.items())
        return (
            f"Refinement({len(self.status)} images, strategy={self.strategy!r}, "
            f"pivots={self.pivots!r}, {shapes})"
        )


@torch.no_grad()
def _posterior(evidence: Evidence, refined: Outputs, after: Outputs | None) -> Outputs:
    """What follows from the evidence, worked out in float32 at least."""
    outputs = refined if after is None else after
    exact = outputs.replace(**{n: z.float() for n, z in outputs.items() if z.element_size() < 4})
    held = evidence.clamp(exact) if after is None else hold(exact, evidence.certain())
    return held.replace(**{n: z.to(outputs[n].dtype) for n, z in held.items()})


def _filled(values: Tensor, rows: int) -> Tensor:
    """At least so many rows, by repeating the last one."""
    missing = values[-1:].expand(rows - len(values), *values.shape[1:])
    return torch.cat([values, missing])
