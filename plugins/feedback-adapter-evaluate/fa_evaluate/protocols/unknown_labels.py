"""A way of predicting unknown labels, and how good its predictions are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.metrics import (
    calibration,
    mean_of,
    negative_log_likelihood,
    ranked,
)
from fa_evaluate.rows import Row

__all__ = ["Method", "UnknownLabels"]


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of predicting unknown labels.

    Args:
        name: See `Row`.
        predict: From what is said (N, labels) bool, which labels are known (labels,) bool,
            and the indices of those to predict, to their probabilities (N, indices).
        tier: See `Row`.
        baseline: See `Row`.
    """

    name: str
    predict: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    tier: str = "A"
    baseline: bool = False

    def rows(
        self,
        bootstrap: Bootstrap,
        checkpoint: str,
        known: float,
        draws: Sequence[Mapping[str, np.ndarray]],
    ) -> list[Row]:
        """See `Bootstrap.rows`."""
        return bootstrap.rows(
            checkpoint, self.name, known, draws, tier=self.tier, baseline=self.baseline
        )


class UnknownLabels:
    """Scores of predictions of the unknown labels, beside the plain model's.

    Args:
        plain: (N, labels), the plain model's probabilities.
        truth: (N, labels) bool.
        bootstrap: Resamples of the N images.
    """

    def __init__(self, plain: np.ndarray, truth: np.ndarray, bootstrap: Bootstrap) -> None:
        self.truth, self.bootstrap = truth.astype(bool), bootstrap
        self._losses = negative_log_likelihood(plain, self.truth).mean(1)
        self.plain = self._scores(plain, self._losses)

    def __call__(self, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric of a method's probabilities (N, labels), as `Bootstrap` gives it."""
        losses = negative_log_likelihood(probabilities, self.truth).mean(1)
        scores = self._scores(probabilities, losses)
        worse = mean_of(losses > self._losses + 1e-9)
        return {
            "mAP": scores["mAP"],
            "mAP gain": scores["mAP"] - self.plain["mAP"],
            **scores,
            "images made worse": self.bootstrap(worse),
        }

    def _scores(self, p: np.ndarray, losses: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "mAP": self.bootstrap(ranked(p, self.truth)),
            "NLL": self.bootstrap(mean_of(losses)),
            "ECE": self.bootstrap(calibration(p, self.truth)),
        }
