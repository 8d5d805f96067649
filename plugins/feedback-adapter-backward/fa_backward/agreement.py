"""Which hypothesis is best: one that agrees with the network's own map of categories.

Log-odds of thousands of dependent elements prefer whatever explains most of the scene. A network
with a logit per category and cell says how much of each cell an object of the category covers;
a hypothesis says it, too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-6


def agreement(masks: Tensor, coverage: Tensor) -> Tensor:
    """Soft intersection over union of masks and coverage, (n,), from 0 to 1.

    Args:
        masks: (n, H, W), from 0 to 1.
        coverage: (n, h, w), the share of each cell that is covered, h a divisor of H.

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 4, 4)
        >>> mask[:, :2, :2] = 1
        >>> agreement(mask, torch.tensor([[[1.0, 0.0], [0.5, 0.0]]])).tolist()
        [0.6666666865348816]
    """
    cells = F.adaptive_avg_pool2d(masks[:, None], coverage.shape[-2:])[:, 0]
    both, either = torch.minimum(cells, coverage), torch.maximum(cells, coverage)
    return both.sum((1, 2)) / either.sum((1, 2)).clamp(min=LEAST)


def middles(masks: Tensor) -> Tensor:
    """The middle of each mask (n, H, W): (n, 2), y and x from -1 to 1; (0, 0) of an empty one.

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 4, 4)
        >>> mask[:, 3, 0] = 1
        >>> middles(mask).tolist()
        [[0.75, -0.75]]
    """
    total = masks.sum((1, 2)).clamp(min=LEAST)
    sides = [
        (torch.arange(size, device=masks.device) * 2 + 1) / size - 1 for size in masks.shape[1:]
    ]
    y = (masks.sum(2) * sides[0]).sum(1) / total
    x = (masks.sum(1) * sides[1]).sum(1) / total
    return torch.stack([y, x], 1)
