"""Labels as tensors: their loss and their clamp.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, sections 3.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Output, Outputs

__all__ = ["BoundLabels", "rows_of"]

_LIMIT = 1 - 1e-6
"""How certain a clamped posterior can be at most. The limit keeps its logits finite."""


class BoundLabels(Evidence):
    """Labels as tensors: per output the target and the weight of each variable.

    Args:
        target: `{output: (batch, labels)}` in [0, 1].
        weight: `{output: (batch, labels)}` in [0, 1]; 0 for what isn't known.
        doubts: `{output: (batch, labels)}`, see `Evidence.doubts`.
    """

    def __init__(
        self,
        target: dict[str, Tensor],
        weight: dict[str, Tensor],
        doubts: dict[str, Tensor] | None = None,
    ) -> None:
        self.target, self.weight = _ordinary(target), _ordinary(weight)
        self._doubts = doubts or {}
        self.specs: Mapping[str, Output] = {}
        # Only outputs of which something is known are in the loss: a pivot that reaches others
        # alone is a mistake that should be found. If nothing is known at all, all are (with 0).
        some = [name for name, w in self.weight.items() if bool((w > 0).any())]
        self.stated = some or list(self.weight)

    def conflict(self, other: Evidence) -> str | None:
        """See `Evidence.conflict`."""
        if not isinstance(other, BoundLabels):
            return None
        for name in self.target.keys() & other.target.keys():
            both = (self.weight[name] > 0) & (other.weight[name] > 0)
            apart = both & ((self.target[name] - other.target[name]).abs() == 1)
            for image, column in apart.nonzero().tolist()[:1]:
                label = self.specs[name].labels[column]
                return f"{label!r} is said to be both present and absent in image {image}."
            if self.specs[name].kind == "multiclass":
                target = torch.where(other.weight[name] > 0, other.target[name], self.target[name])
                weight = torch.maximum(self.weight[name], other.weight[name])
                why = _impossible(name, self.specs[name], target, weight)
                if why:
                    return why
        return None

    def check(self, specs: Mapping[str, Output]) -> Self:
        """Refuse what no probabilities of classes can be, and remember what outputs mean."""
        self.specs = specs
        for name, spec in specs.items():
            if spec.kind != "multiclass" or name not in self.target:
                continue
            why = _impossible(name, spec, self.target[name], self.weight[name])
            if why:
                raise EvidenceError(f"Contradiction: {why}")
        return self

    def on(self, like: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Target and weight of an output, on the device and of the type of its logits."""
        target, weight = self.target[name], self.weight[name]
        if target.device != like.device or target.dtype != like.dtype:
            target, weight = target.to(like), weight.to(like)
            self.target[name], self.weight[name] = target, weight
        return target, weight

    def loss(self, outputs: Outputs) -> Tensor:
        """See `Evidence.loss`."""
        total: Tensor | None = None
        for name in self.stated:
            logits = outputs[name]
            target, weight = self.on(logits, name)
            if outputs.specs[name].kind == "multilabel":
                items = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            else:
                log_p = logits.log_softmax(1)
                # log(1 - p), safe where p is 1 in floating point
                log_q = torch.log1p(-log_p.exp().clamp(max=_LIMIT))
                items = -(target * log_p + (1 - target) * log_q)
                certain = target == 1
                items = torch.where(certain, -log_p, items)
            part = (items * weight).sum(1)
            total = part if total is None else total + part
        assert total is not None, "a model has at least one output"
        return total

    def clamp(self, outputs: Outputs) -> Outputs:
        """See `Evidence.clamp`."""
        new: dict[str, Tensor] = {}
        for name in self.target:
            logits, spec = outputs[name], outputs.specs[name]
            target, weight = self.on(logits, name)
            if not bool((weight > 0).any()):
                continue
            p = spec.probabilities(logits)
            mixed = torch.lerp(p, target, weight)
            if spec.kind == "multilabel":
                fixed = mixed.clamp(1 - _LIMIT, _LIMIT).logit()
                new[name] = torch.where(weight > 0, fixed, logits)
            else:
                known = weight > 0
                # of the unknown classes among themselves, however unlikely they are together
                free = logits.masked_fill(known, torch.finfo(logits.dtype).min).log_softmax(1)
                rest = 1 - torch.where(known, mixed, 0.0).sum(1, keepdim=True)
                fixed = mixed.clamp(min=1 - _LIMIT).log()
                posterior = torch.where(known, fixed, free + rest.clamp(min=1 - _LIMIT).log())
                some = known.any(1, keepdim=True)
                new[name] = torch.where(some, posterior.log_softmax(1), logits)
        return outputs.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Evidence.known`."""
        return {name: self.on(outputs[name], name)[1] > 0 for name in self.target}

    def doubts(self) -> dict[str, Tensor]:
        """See `Evidence.doubts`."""
        return self._doubts

    def take(self, rows: Tensor) -> BoundLabels:
        """See `Evidence.take`."""
        return BoundLabels(
            rows_of(self.target, rows),
            rows_of(self.weight, rows),
            rows_of(self._doubts, rows),
        )


def rows_of(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The rows (k,) of every tensor."""
    return {name: tensor[rows.to(tensor.device)] for name, tensor in tensors.items()}


def _ordinary(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of what was made under inference_mode, which autograd refuses."""
    return {name: t.clone() if t.is_inference() else t for name, t in tensors.items()}


def _impossible(name: str, spec: Output, target: Tensor, weight: Tensor) -> str | None:
    """Why no probabilities of classes that exclude each other are like this, if so."""
    total = (target * (weight > 0)).sum(1)
    ruled_out = ((target == 0) & (weight == 1)).all(1)
    for index in ((total > 1 + 1e-6) | ruled_out).nonzero().flatten().tolist():
        said = {
            spec.labels[i]: float(target[index, i])
            for i in weight[index].nonzero().flatten().tolist()[:5]
        }
        return (
            f"in image {index} the classes of {name!r} exclude each other, so their probabilities "
            f"can't be {said}. At most one can be 1, one must be."
        )
    return None
