"""What a baseline may learn from, and what it becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From logits (M, n) and what is said (M, n), to probabilities (M, unknown)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """What a baseline may learn from.

    Args:
        logits: (N, n) the model's, of training images.
        labels: (N, n) their labels, 0 or 1.
    """

    logits: np.ndarray
    labels: np.ndarray


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, in float64."""
    return 1 / (1 + np.exp(-x.astype(np.float64)))
