"""Captions from known words without feedback: what training images with like words look like."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.errors import DataError, OptionsError

__all__ = ["Neighbours"]


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """The mean image vector of the training images whose words are the most alike.

    Args:
        vectors: (M, width), what the model gives its decoder for each training image.
        targets: (M, words) bool: their words.
        count: How many neighbours, 1 to M.
        share: Weight of the neighbours' mean, in [0, 1]; the rest is the image's own vector.

    Words alike: the cosine of the known words that the images have, each word weighted by the
    logarithm of how rare it is in training.

    Raises:
        DataError: As many vectors as targets are needed.
        OptionsError: `count` or `share` is out of its range.
    """

    vectors: Tensor
    targets: Tensor
    count: int = 20
    share: float = 1.0

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.targets):
            raise DataError(f"{len(self.vectors)} vectors, but {len(self.targets)} targets.")
        if not (1 <= self.count <= len(self.vectors) and 0 <= self.share <= 1):
            raise OptionsError(
                f"count={self.count} must be 1 to {len(self.vectors)}, share={self.share:g} 0 to 1."
            )

    def __call__(self, own: Tensor, targets: Tensor, known: Tensor) -> Tensor:
        """Image vectors (N, width).

        Args:
            own: (N, width), of the images themselves.
            targets: (N, words) bool: their words.
            known: (words,) bool: which of them are known.
        """
        there = self.targets.float()
        weight = (len(there) / there.sum(0).clamp(min=1)).log() * known
        theirs, ours = (F.normalize(t.float() * weight) for t in (self.targets, targets))
        nearest = (ours @ theirs.T).topk(self.count, 1).indices
        return torch.lerp(own, self.vectors[nearest].mean(1), self.share)
