"""Scores of predictions, and how sure they are: resampling images.

A `Score` is a function of how often each image counts, (N,), so that one ranking serves all
resamples; `None` counts each image once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from feedback_adapter.errors import DataError

__all__ = [
    "Score",
    "calibration",
    "mean_average_precision",
    "mean_of",
    "negative_log_likelihood",
    "ranked",
]

Score = Callable[[np.ndarray | None], float]


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over labels of average precision, 0 to 100; labels without a positive don't count.

    Args:
        scores: (N, labels), any monotone score; equal ones share their last rank.
        truth: (N, labels) bool.

    Raises:
        DataError: No label has a positive image.
    """
    return ranked(scores, truth)(None)


def ranked(scores: np.ndarray, truth: np.ndarray) -> Score:
    """`mean_average_precision`, ranked once.

    Args:
        scores: (N, labels).
        truth: (N, labels) bool.

    Raises:
        DataError: No label has a positive image.
    """
    truth = truth.astype(bool)
    there = truth.any(0)
    if not there.any():
        raise DataError(
            "No label has a positive image, so average precision isn't defined: measure more "
            "images, or others."
        )
    scores, truth = scores[:, there], truth[:, there]
    order = np.argsort(-scores, 0, kind="stable")
    hits = np.take_along_axis(truth, order, 0)
    descending = np.take_along_axis(scores, order, 0)
    ends = np.concatenate([descending[1:] != descending[:-1], np.ones_like(hits[:1])])
    place = np.where(ends, np.arange(len(scores))[:, None], len(scores))
    last = np.minimum.accumulate(place[::-1], 0)[::-1]  # where a run of equal scores ends
    tied = not bool(ends.all())

    def score(counts: np.ndarray | None) -> float:
        weight = np.ones(len(scores)) if counts is None else counts.astype(np.float64)
        each = weight[order]
        positive = each * hits
        found, seen = positive.cumsum(0), each.cumsum(0)
        if tied:
            found = np.take_along_axis(found, last, 0)
            seen = np.take_along_axis(seen, last, 0)
        total = positive.sum(0)
        precision = (positive * found / np.maximum(seen, 1e-12)).sum(0)
        some = total > 0
        return 100 * float((precision[some] / total[some]).mean())

    return score


def mean_of(values: np.ndarray) -> Score:
    """The mean over images of (N,) values."""
    values = values.astype(np.float64)

    def score(counts: np.ndarray | None) -> float:
        return float(values.mean() if counts is None else values @ counts / counts.sum())

    return score


def negative_log_likelihood(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """-log p(truth), elementwise, in nats; probabilities are kept 1e-7 away from 0 and 1."""
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.where(truth, np.log(p), np.log1p(-p))


def calibration(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> Score:
    """Expected calibration error, in [0, 1], over all predictions together.

    The mean distance of a bin's mean probability from its share of positives, weighted by
    the bin's size (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, for
    predictions of present or absent).

    Args:
        probabilities: (N, labels); what is outside [0, 1] counts as 0 or 1.
        truth: (N, labels) bool.
        bins: Bins of equal width.
    """
    images, labels = probabilities.shape
    p = np.clip(probabilities.astype(np.float64), 0, 1)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    place += np.arange(images)[:, None] * bins
    gap = np.bincount(place.ravel(), (p - truth).ravel(), minlength=images * bins)
    gap = gap.reshape(images, bins) / labels

    def score(counts: np.ndarray | None) -> float:
        weight = np.ones(images) if counts is None else counts
        return float(np.abs(weight @ gap).sum() / weight.sum())

    return score
