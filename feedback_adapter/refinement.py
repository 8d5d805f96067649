"""The result of a refinement: predictions before and after, and how it went."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from feedback_adapter.changes import Change, Doubt
from feedback_adapter.errors import InputError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.certain import hold
from feedback_adapter.explain import Asked, Explanation, explain
from feedback_adapter.outputs import Output, Outputs
from feedback_adapter.rows import indices
from feedback_adapter.shown import Shown

__all__ = ["CONVERGED", "Change", "Doubt", "Refinement", "statuses"]

CONVERGED = "converged: the loss hardly falls any more"
"""Status of an image that was done before the steps ran out."""


def statuses(converged: Tensor, otherwise: str) -> tuple[str, ...]:
    """A status per image.

    Args:
        converged: (batch,) bool, whether an image's loss no longer fell.
        otherwise: What to say of the others, with what to try, such as
            `"ran out of steps: try steps=20"`.
    """
    return tuple(CONVERGED if done else otherwise for done in converged.tolist())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Refinement(Shown):
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
        activations: `{site: (batch, ...)}`, what the activations of the pivots became, where
            `refine` was told to keep them (`explainable=True`) and the strategy has pivots.
        asked: What `explain` needs, where `refine` was told to keep it (`explainable=True`).

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
    activations: dict[str, Tensor] | None = None
    asked: Asked | None = None

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
        activations: dict[str, Tensor] | None = None,
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
            activations: What the pivots' activations became, where the problem says `hold`.
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
            doubts=evidence.doubts(), present=evidence.present(before), activations=activations,
        )  # fmt: skip

    @classmethod
    def of_none(
        cls, evidence: Evidence, specs: Mapping[str, Output], device: torch.device
    ) -> Refinement:
        """The refinement of no images."""
        outputs = Outputs({name: spec.blank(0, device) for name, spec in specs.items()}, specs)
        return cls.of(
            evidence, outputs, outputs, status=(), losses=torch.zeros(1, 0, device=device)
        )

    @classmethod
    def cat(cls, parts: Sequence[Refinement]) -> Refinement:
        """The results of several batches as that of one, in their order.

        Where the parts took different numbers of steps, the shorter ones' losses and traces are
        filled up with their last row.

        Raises:
            InputError: There is no part, or they are of models with other outputs.
        """
        parts = [part for part in parts if len(part)] or list(parts[:1])
        forms = [
            {n: (p.outputs_after.specs[n], z.shape[1:]) for n, z in p.outputs_after.items()}
            for p in parts
        ]
        if not forms or any(form != forms[0] for form in forms):
            said = " and ".join(dict.fromkeys(repr(part.outputs_after) for part in parts))
            raise InputError(
                f"Only results with the same outputs, of the same size, can be joined: given "
                f"{said or 'none'}."
            )
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
        """The result of some of the images, by index (k,), in that order.

        Args:
            rows: Indices, which may repeat: a tensor, a list, an array, a slice; or True and
                False for each image.

        Raises:
            InputError: Something else, or an image that isn't there.
        """
        rows = indices(rows, len(self))
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
            activations=self.activations and {n: a[rows] for n, a in self.activations.items()},
            asked=None if self.asked is None else self.asked.take(rows),
        )

    def explain(
        self, label: str, image: int = 0, output: str | None = None, *, orders: int = 64
    ) -> Explanation:
        """Say which evidence moved a label of one image, and where the network looks.

        The image is refined again with every choice of its pieces of evidence (see
        `Evidence.items`), each once, by the strategy that refined it. From these come Shapley
        values: each piece's part of the movement, averaged over all orders in which the pieces
        can become known. They sum to the movement, and what changes nothing gets exactly 0.

        Args:
            label: The label, of an output that is multilabel, multiclass or a map.
            image: Which image of the batch.
            output: Which output; needed only where several have a label of that name.
            orders: With more than 10 pieces of evidence the values are estimated from so many
                orders, with their standard errors; at least 2.

        Raises:
            EvidenceError: No such label, or it is told with certainty and so explains itself.
            InputError: The result wasn't made with `refine(..., explainable=True)`, no such
                image, or the model or the images have changed since.
            MissingCaptumError: captum isn't installed (`feedback-adapter[explain]`).
            OptionsError: Fewer than 2 orders.

        Example:
            >>> import torch, feedback_adapter as fa
            >>> adapter = fa.wrap(torch.nn.Linear(2, 3), labels=["dog", "snow", "ball"])
            >>> known = fa.Labels({"dog": 1, "snow": 0})
            >>> result = adapter.refine(
            ...     torch.ones(1, 2), known, pivots="input", explainable=True
            ... )
            >>> why = result.explain("ball")
            >>> sorted(row.evidence for row in why.contributions)
            ['dog', 'no snow']
        """
        return explain(self, label, image, output, orders)

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
    def probabilities(self) -> Tensor | dict[str, Tensor]:
        """What is in `after` as probabilities in [0, 1], in the same form; captions have none."""
        return Outputs(self.outputs_after.probabilities(), self.outputs_after.specs).as_returned()

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

    def __len__(self) -> int:
        return len(self.status)

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
