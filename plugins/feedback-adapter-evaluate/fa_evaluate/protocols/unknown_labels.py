"""A way of predicting unknown labels, and how good its predictions are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.metrics import (
    calibration,
    mean_of,
    negative_log_likelihood,
    ranked,
)

__all__ = ["Method", "UnknownLabels"]


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of predicting unknown labels.

    Args:
        name: See `Row`.
        predict: From what is said (N, labels) bool, which labels are known (labels,) bool,
            and the indices of those to predict, to their probabilities (N, indices).
        uses: See `Row`.
        baseline: See `Row`.
    """

    name: str
    predict: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    uses: str = "weights"
    baseline: bool = False


class UnknownLabels:
    """Scores of predictions of the unknown labels, beside the unrefined model's.

    Args:
        unrefined: (N, labels), the unrefined model's probabilities.
        truth: (N, labels) bool.
        bootstrap: Resamples of the N images.
        calibrated: (N, labels), the same calibrated: an image is made worse if its labels are less
            likely than by these. By default those of the model as it is.
    """

    def __init__(
        self,
        unrefined: np.ndarray,
        truth: np.ndarray,
        bootstrap: Bootstrap,
        calibrated: np.ndarray | None = None,
    ) -> None:
        self.truth, self.bootstrap = truth.astype(bool), bootstrap
        fair = unrefined if calibrated is None else calibrated
        self._losses = negative_log_likelihood(fair, self.truth).mean(1)
        own = negative_log_likelihood(unrefined, self.truth).mean(1)
        self.unrefined = self._scores(unrefined, own)
        if calibrated is not None:
            self.unrefined["images made worse"] = self._worse(own)

    def __call__(self, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric of a method's probabilities (N, labels), as `Bootstrap` gives it."""
        losses = negative_log_likelihood(probabilities, self.truth).mean(1)
        scores = self._scores(probabilities, losses)
        return {
            "mAP": scores["mAP"],
            "mAP gain": scores["mAP"] - self.unrefined["mAP"],
            **scores,
            "images made worse": self._worse(losses),
        }

    def _worse(self, losses: np.ndarray) -> np.ndarray:
        return self.bootstrap(mean_of(losses > self._losses + 1e-9))

    def _scores(self, p: np.ndarray, losses: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "mAP": self.bootstrap(ranked(p, self.truth)),
            "NLL": self.bootstrap(mean_of(losses)),
            "ECE": self.bootstrap(calibration(p, self.truth)),
        }
