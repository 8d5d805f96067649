"""What is known about some images, as the tensors that the loop reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from fa_dfm.errors import KnownError

__all__ = ["Known"]


@dataclasses.dataclass(frozen=True)
class Known:
    """Which labels of which images are known, how surely, and what they are.

    Args:
        weight: c m, the confidence where something is known and 0 elsewhere, in [0, 1].
            (batch, 1, height, width) or (batch, 1) where a softmax decides between the labels;
            (batch, K, ...) where each label is a sigmoid of its own.
        target: y, the known labels as probabilities, (batch, K, ...) like the outputs. Where
            the weight is 0 it is not read.

    Raises:
        KnownError: The two shapes don't belong together, or a weight is outside [0, 1].
    """

    weight: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        w, y = self.weight, self.target
        fits = w.ndim == y.ndim and w.shape[0] == y.shape[0] and w.shape[2:] == y.shape[2:]
        if not fits or w.shape[1] not in (1, y.shape[1]):
            raise KnownError(
                f"A weight of shape {tuple(w.shape)} doesn't go with a target of shape "
                f"{tuple(y.shape)}: give (batch, 1 or K, ...) and (batch, K, ...)."
            )

    @classmethod
    def from_mask(cls, mask: Tensor, labels: int, confidence: float | Tensor = 1.0) -> Known:
        """Known pixels from a mask of labels.

        Args:
            mask: (batch, height, width) of integers; a negative one or one from `labels` on
                means that nobody knows this pixel.
            labels: K, how many labels there are.
            confidence: In [0, 1]; a number, or one per image (batch,).
        """
        inside = (mask >= 0) & (mask < labels)
        target = torch.nn.functional.one_hot(mask.long().clamp(0, labels - 1), labels)
        sure = torch.as_tensor(confidence, device=mask.device).reshape(-1, 1, 1, 1)
        return cls(
            inside.unsqueeze(1) * sure, target.permute(0, 3, 1, 2).to(torch.get_default_dtype())
        )

    def take(self, rows: Tensor | Sequence[int]) -> Known:
        """The same for some of the images, by their indices."""
        return Known(self.weight[rows], self.target[rows])

    def clamp(self, p: Tensor) -> Tensor:
        """p~ = (1 - c m) p + c m y."""
        return torch.lerp(p, self.target.to(p.dtype), self.weight.to(p.dtype).expand_as(p))
