"""The unknown logits given the known ones, as if all were jointly Gaussian."""

from __future__ import annotations

import numpy as np

from fa_evaluate.baselines.training import Predictor, Training, sigmoid


def conditional_logits(
    train: Training, known: np.ndarray, unknown: np.ndarray, strength: float = 300.0
) -> Predictor:
    """Known logits become what training images with that label have on average.

    Args:
        train: Gives the covariance of the logits, and their mean with a label and without.
        known: Indices of the known labels.
        unknown: Indices of those to predict.
        strength: Variance of the noise of a known logit.
    """
    x, y = train.logits.astype(np.float64), train.labels
    covariance = np.cov(x.T)
    own = covariance[np.ix_(known, known)] + strength * np.eye(len(known))
    gain = np.linalg.solve(own, covariance[np.ix_(known, unknown)])
    there = (x * y).sum(0) / np.maximum(y.sum(0), 1)
    absent = (x * (1 - y)).sum(0) / np.maximum((1 - y).sum(0), 1)

    def predict(logits: np.ndarray, said: np.ndarray) -> np.ndarray:
        given = np.where(said > 0, there, absent)[:, known]
        return sigmoid(logits[:, unknown] + (given - logits[:, known]) @ gain)

    return predict
