"""The evidence protocol: what is known about each image before inference.

Evidence is two things, both per image (Feedback-prop, section 3.1): a loss that
says how badly a model's outputs disagree with what is known, and a clamp that
fixes the known part of the model's own posterior. Strategies know nothing else.
"""

from __future__ import annotations

import abc
import copy
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.certain import Certain, consistent, hold
from feedback_adapter.evidence.given import everywhere, short
from feedback_adapter.outputs import Output, Outputs
from feedback_adapter.rows import indices

__all__ = ["All", "Evidence", "Opinion", "Unbound"]

Opinion = Callable[[str, Tensor, Tensor], Tensor]
"""Log-odds (batch, labels) of an output's labels from the model and from the labels that are told:
of a told label from the other ones, without its own telling. Its arguments are the output's name,
values (batch, labels) in [0, 1], and which labels are told (batch, labels), bool."""


class Evidence(abc.ABC):
    """What is known about a batch of images. Subclass this to write a new kind of evidence.

    A subclass implements `loss`, `clamp`, `known` and `take`. It also implements `bind` if it has
    something to check or to prepare once per refinement.

    Attributes:
        silence: What to say of an image of which the evidence turns out to say nothing; `None`
            where users know that themselves.
    """

    silence: str | None = None

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Check the evidence against a model's outputs and a batch, once per refinement.

        Args:
            specs: The model's outputs by name.
            batch: Number of images.

        Returns:
            The evidence to use, usually a form that holds tensors.

        Raises:
            EvidenceError: The evidence doesn't fit the outputs or the batch.
        """
        del specs, batch
        return self

    @abc.abstractmethod
    def loss(self, outputs: Outputs) -> Tensor:
        """Say how much each image's outputs disagree with what is known.

        Returns:
            (batch,), in nats and differentiable. It is summed over what is known and never
            averaged over the batch. It is 0 for an image about which nothing is known.
        """

    @abc.abstractmethod
    def clamp(self, outputs: Outputs) -> Outputs:
        """Return the model's own posterior, as logits, if what is known is taken as given."""

    @abc.abstractmethod
    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """Say which variables the evidence fixes, as `{output: (batch, labels) bool}`.

        Every output has a mask of the form of its logits; `everywhere` adds the empty ones.
        """

    @abc.abstractmethod
    def take(self, rows: Tensor) -> Evidence:
        """Return the evidence for some of the images, in the order of their indices.

        Args:
            rows: (k,) int64, indices of images in the batch. They may repeat.
        """

    @property
    def doubtful(self) -> bool:
        """Whether some of the evidence may be wrong. Then `believed` makes other evidence of it."""
        return False

    def believed(self, before: Outputs, opinion: Opinion) -> Evidence:
        """Return what to believe where some of the evidence may be wrong.

        Args:
            before: The unrefined model's outputs.
            opinion: What the model and the rest of the evidence say of each label.

        Returns:
            Evidence that isn't doubtful any more.
        """
        del before, opinion
        return self

    def doubts(self) -> dict[str, Tensor]:
        """Return how likely each label is told wrong, `{output: (batch, labels)}` in [0, 1]."""
        return {}

    def present(self, outputs: Outputs) -> dict[str, Tensor]:
        """Say which variables are said to hold, rather than not to, `{output: mask}`.

        These are the ones that the clamp makes likelier in the eyes of a model without an opinion.

        Args:
            outputs: Any outputs of the model; only their form counts.
        """
        blank = Outputs({name: torch.zeros_like(z) for name, z in outputs.items()}, outputs.specs)
        before, after = blank.probabilities(), self.clamp(blank).probabilities()
        return everywhere(outputs, {name: torch.gt(after[name], before[name]) for name in before})

    def read(self, outputs: Outputs) -> Outputs:
        """Take out of outputs what the loss reads, so that little is computed of large maps.

        The result must be linear in the logits, image by image. By default it is all of them.
        """
        return outputs

    def loss_of(self, read: Outputs) -> Tensor:
        """Say what `loss` says, of what `read` has taken out of outputs."""
        return self.loss(read)

    def certain(self) -> Sequence[Certain]:
        """Say what (bound) evidence fixes without a doubt, so that contradictions are found.

        `a & b` also keeps these facts, whatever less certain evidence says.
        """
        return ()

    def items(self, specs: Mapping[str, Output]) -> list[str]:
        """Name the single facts that are known of an image, for `Refinement.explain`.

        It is asked of evidence of one image (see `take`), before that is bound. By default the
        evidence as a whole is one fact.

        Args:
            specs: The model's outputs by name.
        """
        del specs
        own = type(self).__repr__ is not object.__repr__
        return [short(self) if own else type(self).__name__]

    def only(self, facts: Sequence[int], specs: Mapping[str, Output]) -> Evidence:
        """Return the evidence of one image with some of the facts that `items` names.

        Args:
            facts: Their numbers, ascending, at least one.
            specs: The model's outputs by name.
        """
        del facts, specs
        return self

    def __and__(self, other: object) -> All:
        return All((*_parts(self), *_parts(_evidence(other))))

    def __rand__(self, other: object) -> All:
        return All((*_parts(_evidence(other)), *_parts(self)))


class Unbound(Evidence):
    """Evidence in the user's words, which becomes tensors only when it is bound.

    A subclass implements `bind`, which returns other evidence, and names in `said` the attribute
    that holds what is said: a list with one item per image, or anything else for all images.
    """

    said: ClassVar[str]

    @abc.abstractmethod
    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Make the form that holds tensors. See `Evidence.bind`."""

    def take(self, rows: Tensor) -> Self:
        """See `Evidence.take`."""
        taken, value = copy.copy(self), getattr(self, self.said)
        if isinstance(value, list):
            chosen = indices(rows, len(value))
            setattr(taken, self.said, [value[row] for row in chosen.tolist()])
        return taken

    def items(self, specs: Mapping[str, Output]) -> list[str]:
        """One fact, or none where nothing is said of the image. See `Evidence.items`."""
        del specs
        value = getattr(self, self.said)
        value = value[0] if isinstance(value, list) else value
        if value is None:
            return []
        text = " or ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        return [f"{type(self).__name__}: {text if len(text) <= 60 else text[:57] + '...'}"]

    def loss(self, outputs: Outputs) -> Tensor:
        """See `Evidence.loss`."""
        return self.bind(outputs.specs, outputs.batch).loss(outputs)

    def clamp(self, outputs: Outputs) -> Outputs:
        """See `Evidence.clamp`."""
        return self.bind(outputs.specs, outputs.batch).clamp(outputs)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Evidence.known`."""
        return self.bind(outputs.specs, outputs.batch).known(outputs)


class All(Evidence):
    """Several pieces of evidence that hold together: what `a & b` makes.

    Losses add up. Clamps apply from left to right, and what is certain holds whatever the order.
    """

    def __init__(self, parts: Sequence[Evidence]) -> None:
        if not isinstance(parts, Sequence) or not parts:
            raise EvidenceError("All(...) takes a list with at least one piece of evidence.")
        self.parts = tuple(_evidence(part) for part in parts)

    def bind(self, specs: Mapping[str, Output], batch: int) -> All:
        """Bind every part, and check that they can hold together. See `Evidence.bind`."""
        bound = All([part.bind(specs, batch) for part in self.parts])
        consistent(bound.certain(), specs)
        return bound

    @property
    def silence(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The first part's that has one."""
        return next((part.silence for part in self.parts if part.silence), None)

    def certain(self) -> list[Certain]:
        """What is certain of any part. See `Evidence.certain`."""
        return [fact for part in self.parts for fact in part.certain()]

    def loss(self, outputs: Outputs) -> Tensor:
        """Sum of the parts' losses, (batch,), in nats."""
        return functools.reduce(operator.add, (part.loss(outputs) for part in self.parts))

    def read(self, outputs: Outputs) -> Outputs:
        """What each part reads, under names that begin with the part's number."""
        logits: dict[str, Tensor] = {}
        specs: dict[str, Output] = {}
        for number, part in enumerate(self.parts):
            for name, value in part.read(outputs).items():
                logits[f"{number} {name}"] = value
                specs[f"{number} {name}"] = outputs.specs[name]
        return Outputs(logits, specs)

    def loss_of(self, read: Outputs) -> Tensor:
        """Sum of the parts' losses."""
        losses: list[Tensor] = []
        for number, part in enumerate(self.parts):
            names = {n: n.partition(" ")[2] for n in read if n.partition(" ")[0] == str(number)}
            logits = {name: read[own] for own, name in names.items()}
            specs = {name: read.specs[own] for own, name in names.items()}
            losses.append(part.loss_of(Outputs(logits, specs)))
        return functools.reduce(operator.add, losses)

    def clamp(self, outputs: Outputs) -> Outputs:
        """Hold what is certain, clamp by each part in turn, and hold again what is certain."""
        if any(isinstance(part, Unbound) for part in self.parts):
            return self.bind(outputs.specs, outputs.batch).clamp(outputs)
        certain = self.certain()
        after = hold(outputs, certain)
        for part in self.parts:
            after = part.clamp(after)
        return hold(after, certain)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """Known by any part."""
        each = [everywhere(outputs, part.known(outputs)) for part in self.parts]
        return {name: functools.reduce(operator.or_, (k[name] for k in each)) for name in outputs}

    def present(self, outputs: Outputs) -> dict[str, Tensor]:
        """Said by any part to hold."""
        each = [part.present(outputs) for part in self.parts]
        return {name: functools.reduce(operator.or_, (p[name] for p in each)) for name in outputs}

    @property
    def doubtful(self) -> bool:
        """Whether some of any part may be wrong."""
        return any(part.doubtful for part in self.parts)

    def believed(self, before: Outputs, opinion: Opinion) -> All:
        """Return what to believe of every part."""
        return All([part.believed(before, opinion) for part in self.parts])

    def doubts(self) -> dict[str, Tensor]:
        """Return the highest doubt of any part."""
        result: dict[str, Tensor] = {}
        for part in self.parts:
            for name, doubt in part.doubts().items():
                result[name] = torch.maximum(result[name], doubt) if name in result else doubt
        return result

    def items(self, specs: Mapping[str, Output]) -> list[str]:
        """The facts of each part in turn. See `Evidence.items`."""
        return [name for part in self.parts for name in part.items(specs)]

    def only(self, facts: Sequence[int], specs: Mapping[str, Output]) -> All:
        """The parts that have some of the facts. See `Evidence.only`."""
        some: list[Evidence] = []
        first = 0
        for part in self.parts:
            end = first + len(part.items(specs))
            own = [fact - first for fact in facts if first <= fact < end]
            some += [part.only(own, specs)] if own else []
            first = end
        return All(some)

    def take(self, rows: Tensor) -> All:
        """Take from every part."""
        return All([part.take(rows) for part in self.parts])

    def __repr__(self) -> str:
        return " & ".join(map(repr, self.parts))


def _parts(evidence: Evidence) -> tuple[Evidence, ...]:
    return evidence.parts if isinstance(evidence, All) else (evidence,)


class _NoEvidenceError(EvidenceError, TypeError):
    """Something else where evidence should be."""


def _evidence(value: Any) -> Evidence:
    if not isinstance(value, Evidence):
        raise _NoEvidenceError(
            f"{short(value)} isn't evidence. Join evidence with evidence, such as "
            "Labels({'dog': 1}) & Coarse('animal')."
        )
    return value
