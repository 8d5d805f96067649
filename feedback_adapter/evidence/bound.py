"""Labels as tensors: their loss and their clamp.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, sections 3.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.certain import LIMIT, Certain, consistent
from feedback_adapter.evidence.given import everywhere
from feedback_adapter.outputs import Output, Outputs


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
        # Only outputs of which something is known are in the loss: a pivot that reaches others
        # alone is a mistake that should be found. If nothing is known at all, all are (with 0).
        some = [name for name, w in self.weight.items() if bool((w > 0).any())]
        self.stated = some or list(self.weight)

    def certain(self) -> list[Certain]:
        return [
            Certain(name, torch.where(self.weight[name] == 1, target, torch.nan))
            for name, target in self.target.items()
        ]

    def check(self, specs: Mapping[str, Output]) -> Self:
        """Refuse what no probabilities of classes can be."""
        consistent(self.certain(), specs)
        return self

    def on(self, like: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Target and weight of an output, on the device and of the type of its logits."""
        target, weight = self.target[name], self.weight[name]
        if target.device != like.device or target.dtype != like.dtype:
            target, weight = target.to(like), weight.to(like)
            self.target[name], self.weight[name] = target, weight
        return target, weight

    def loss(self, outputs: Outputs) -> Tensor:
        total: Tensor | None = None
        for name in self.stated:
            logits = outputs[name]
            target, weight = self.on(logits, name)
            if outputs.specs[name].kind == "multilabel":
                items = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            else:
                log_p = logits.log_softmax(1)
                # log(1 - p), safe where p is 1 in floating point
                log_q = torch.log1p(-log_p.exp().clamp(max=LIMIT))
                items = -(target * log_p + (1 - target) * log_q)
                certain = target == 1
                items = torch.where(certain, -log_p, items)
            part = (items * weight).sum(1)
            total = part if total is None else total + part
        assert total is not None, "a model has at least one output"
        return total

    def read(self, outputs: Outputs) -> Outputs:
        return Outputs({name: outputs[name] for name in self.stated}, outputs.specs)

    def clamp(self, outputs: Outputs) -> Outputs:
        new: dict[str, Tensor] = {}
        for name in self.target:
            logits, spec = outputs[name], outputs.specs[name]
            target, weight = self.on(logits, name)
            if not bool((weight > 0).any()):
                continue
            p = spec.probabilities(logits)
            mixed = torch.lerp(p, target, weight)
            if spec.kind == "multilabel":
                fixed = mixed.clamp(1 - LIMIT, LIMIT).logit()
                new[name] = torch.where(weight > 0, fixed, logits)
            else:
                known = weight > 0
                # of the unknown classes among themselves, however unlikely they are together
                free = logits.masked_fill(known, torch.finfo(logits.dtype).min).log_softmax(1)
                rest = 1 - torch.where(known, mixed, 0.0).sum(1, keepdim=True)
                fixed = mixed.clamp(min=1 - LIMIT).log()
                posterior = torch.where(known, fixed, free + rest.clamp(min=1 - LIMIT).log())
                some = known.any(1, keepdim=True)
                new[name] = torch.where(some, posterior.log_softmax(1), logits)
        return outputs.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        told = {name: self.on(outputs[name], name)[1] > 0 for name in self.target}
        return everywhere(outputs, told)

    def present(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Evidence.present`: what is told, also where it is believed to be wrong."""
        told: dict[str, Tensor] = {}
        for name in self.target:
            target, weight = self.on(outputs[name], name)
            doubted = self._doubts.get(name, torch.zeros_like(target)).to(target) > 0.5
            told[name] = (weight > 0) & (torch.gt(target, 0.5) ^ doubted)
        return everywhere(outputs, told)

    def doubts(self) -> dict[str, Tensor]:
        return self._doubts

    def take(self, rows: Tensor) -> BoundLabels:
        return BoundLabels(
            rows_of(self.target, rows), rows_of(self.weight, rows), rows_of(self._doubts, rows)
        )


def rows_of(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The rows (k,) of every tensor."""
    return {name: tensor[rows.to(tensor.device)] for name, tensor in tensors.items()}


def _ordinary(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of what was made under inference_mode, which autograd refuses."""
    return {name: t.clone() if t.is_inference() else t for name, t in tensors.items()}
