"""The loss of a step: cross-entropy plus .3 Dice, and cross-entropy alone where there is no map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_dfm.predictions import Kind

__all__ = ["DICE_WEIGHT", "step_loss"]

DICE_WEIGHT = 0.3


def step_loss(logits: Tensor, target: Tensor, kind: Kind) -> Tensor:
    """The loss of one output, averaged over the batch.

    Args:
        logits: (batch, K) or (batch, K, height, width).
        target: For sigmoids (batch, K, ...) of 0 and 1; else labels (batch, ...), where those
            from K on don't count.
        kind: `"multiclass"` or `"multilabel"`.
    """
    logits = logits.float()
    labels = logits.shape[1]
    if kind == "multilabel":
        entropy = F.binary_cross_entropy_with_logits(logits, target)
        p, truth = logits.sigmoid(), target
    else:
        counted = target < labels
        entropy = F.cross_entropy(logits, torch.where(counted, target, -100), ignore_index=-100)
        if logits.ndim == 2:
            return entropy
        inside = counted.unsqueeze(1)
        p = logits.softmax(1) * inside
        truth = F.one_hot(torch.where(counted, target, 0), labels).permute(0, 3, 1, 2) * inside
    return entropy + DICE_WEIGHT * _dice(p, truth, over_batch=kind == "multiclass")


def _dice(p: Tensor, truth: Tensor, *, over_batch: bool) -> Tensor:
    """1 - Dice, per image; per label of a whole batch where most labels are absent somewhere."""
    space = (0, 2, 3) if over_batch else (1, 2, 3)
    overlap, size = (p * truth).sum(space), (p + truth).sum(space)
    present = truth.sum(space) > 0
    loss = 1 - (2 * overlap + 1) / (size + 1)
    return (loss * present).sum() / present.sum().clamp(min=1) if over_batch else loss.mean()
