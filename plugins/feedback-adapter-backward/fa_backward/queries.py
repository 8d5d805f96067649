"""Questions to the hypotheses about one image: the leftmost, the largest, the darkest."""

from typing import Literal

import torch
from torch import Tensor

from fa_backward.errors import BackwardError
from fa_backward.search import Hypotheses

Choice = Literal["best", "leftmost", "rightmost", "largest", "smallest", "darkest", "brightest"]
SAME = 0.5  # hypotheses whose masks overlap more (intersection over union) are one mode


def modes(found: Hypotheses) -> list[int]:
    """Indices of hypotheses that are about different objects, the best of each first."""
    kept: list[int] = []
    masks = found.mask > 0.5
    for index in range(len(found)):
        if all(_iou(masks[index], masks[other]) < SAME for other in kept):
            kept.append(index)
    return kept


def choose(found: Hypotheses, choice: Choice, floor: float = 0.0) -> int:
    """The index of the mode that a word picks among those that score above a floor.

    Args:
        found: Hypotheses about one image.
        choice: `"best"` is the first; places are those of the mask's middle, sizes its
            number of pixels, brightness the mean colour of the expected object.
        floor: Modes that score below it, in nats, are left out, but never the best one.

    Raises:
        BackwardError: Another word.
    """
    measures = {
        "best": float,
        "leftmost": lambda i: _middle(found.mask[i]),
        "rightmost": lambda i: -_middle(found.mask[i]),
        "largest": lambda i: -float(found.mask[i].sum()),
        "smallest": lambda i: float(found.mask[i].sum()),
        "darkest": lambda i: _brightness(found, i),
        "brightest": lambda i: -_brightness(found, i),
    }
    if choice not in measures:
        raise BackwardError(f"Unknown choice {choice!r}: {', '.join(measures)} are possible.")
    every = modes(found)
    good = [i for i in every if float(found.score[i]) >= floor] or every[:1]
    return min(good, key=measures[choice])


def _iou(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum().clamp(min=1))


def _middle(mask: Tensor) -> float:
    columns = torch.arange(mask.shape[1], dtype=mask.dtype)
    return float((mask.sum(0) * columns).sum() / mask.sum().clamp(min=1e-6))


def _brightness(found: Hypotheses, index: int) -> float:
    amodal = found.amodal[index]
    return float((found.picture[index] * amodal).sum() / amodal.sum().clamp(min=1e-6))
