from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One known set: predict the unknown labels of images.

    Args:
        train_logits: (N, n) the model's, of training images.
        train: (N, n) their labels, 0 or 1.
        logits: (M, n) of the images to predict.
        truth: (M, n) their labels; only the known ones are looked at.
        known: Indices of the known labels.
        unknown: Indices of those to predict.
    """

    train_logits: np.ndarray
    train: np.ndarray
    logits: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    unknown: np.ndarray


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
