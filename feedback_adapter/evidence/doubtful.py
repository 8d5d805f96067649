"""Labels of which some may be told wrong. See `mistakes` for the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Opinion
from feedback_adapter.evidence.bound import BoundLabels, rows_of
from feedback_adapter.evidence.certain import Certain
from feedback_adapter.evidence.mistakes import Wrong, believed, estimate, estimate_each
from feedback_adapter.outputs import Output, Outputs


class DoubtfulLabels(BoundLabels):
    """Labels as tensors, and how often they are told wrong: `None` estimates it for each image."""

    def __init__(
        self, target: dict[str, Tensor], weight: dict[str, Tensor], wrong: Wrong | None
    ) -> None:
        super().__init__(target, weight)
        self.wrong = wrong
        self.fallible = set(target)

    def certain(self) -> list[Certain]:
        """See `Evidence.certain`: nothing that may be wrong."""
        return [fact for fact in super().certain() if fact.output not in self.fallible]

    def check(self, specs: Mapping[str, Output]) -> Self:
        self.fallible = {name for name, spec in specs.items() if spec.kind == "multilabel"}
        for name, spec in specs.items():
            told = name in self.weight and bool((self.weight[name] > 0).any())
            if self.wrong is not None and told and spec.kind != "multilabel":
                raise EvidenceError(
                    f"wrong={self.wrong} is for multilabel outputs, but {name!r} is {spec.kind}: "
                    "say how far to trust its labels with confidence=."
                )
        return super().check(specs)

    @property
    def doubtful(self) -> bool:
        return True

    def believed(self, before: Outputs, opinion: Opinion) -> BoundLabels:
        target, doubts = dict(self.target), dict[str, Tensor]()
        for name, told, hard, known in self._fallible(before):
            values = self._weighed(before[name], told, hard)
            values = self._weighed(opinion(name, values, known), told, hard)
            target[name], doubts[name] = values, (values - told).abs() * hard
        return BoundLabels(target, self.weight, doubts)

    def estimated(self, before: Outputs, opinion: Opinion, *, apart: bool) -> Wrong:
        """The shares of wrong labels in all images and outputs together; see `estimate_wrong`."""
        wrong = Wrong(0.05, 0.05)
        for sharper in (False, True):
            thoughts: list[tuple[Tensor, Tensor, Tensor]] = []
            for name, told, hard, known in self._fallible(before):
                thought = before[name]
                if sharper:
                    values = DoubtfulLabels(self.target, self.weight, wrong)._weighed(
                        thought, told, hard
                    )
                    thought = opinion(name, values, known)
                thoughts.append((thought[hard], told[hard], hard[hard]))
            if thoughts:
                wrong = estimate(*map(torch.cat, zip(*thoughts, strict=True)), apart=apart)
        return wrong

    def take(self, rows: Tensor) -> DoubtfulLabels:
        return DoubtfulLabels(rows_of(self.target, rows), rows_of(self.weight, rows), self.wrong)

    def _fallible(self, before: Outputs) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Of each output in which something may be wrong: its name, what is told, and masks."""
        for name in self.target:
            told, weight = self.on(before[name], name)
            known = weight > 0
            hard = known & ((told == 0) | (told == 1))
            if before.specs[name].kind == "multilabel" and bool(hard.any()):
                yield name, told, hard, known

    def _weighed(self, opinion: Tensor, told: Tensor, hard: Tensor) -> Tensor:
        """The probabilities to believe in, in place of what is told."""
        if self.wrong is None:
            missed = invented = estimate_each(opinion, told, hard)
        else:
            missed, invented = opinion.new_tensor([self.wrong.missed, self.wrong.invented])
        return torch.where(hard, believed(opinion, told, missed, invented), told)
