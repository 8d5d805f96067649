"""Predictions as the loop sees them: probabilities, centred so that knowing nothing is zero."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Kind", "centred", "probabilities", "uniform"]

Kind = Literal["multiclass", "multilabel"]


def probabilities(logits: Tensor, kind: Kind) -> Tensor:
    """Logits (batch, K, ...) to probabilities: one softmax over K, or K sigmoids."""
    return logits.softmax(1) if kind == "multiclass" else logits.sigmoid()


def uniform(labels: int, kind: Kind) -> float:
    """The probability of each label before anything has been seen: 1/K, or 1/2 for sigmoids."""
    return 1 / labels if kind == "multiclass" else 0.5


def centred(p: Tensor, kind: Kind) -> Tensor:
    """e(p) = (K p - 1) / (K - 1): 0 where p is uniform, 1 where it is certain.

    A sigmoid decides between two, so K is 2 for each label of its own.
    """
    k = p.shape[1] if kind == "multiclass" else 2
    return torch.add(p, -1 / k) * (k / (k - 1)) if k > 1 else torch.zeros_like(p)
