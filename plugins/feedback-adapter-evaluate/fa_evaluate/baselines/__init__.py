"""What feedback has to beat: functions of a training set and a known set that give a predictor.

What each uses beside the evidence is said as in `fa_evaluate.rows.Row`: the model's weights alone,
also statistics of the training set, or a trained module. Strengths were chosen on dev.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fa_evaluate.baselines.gaussian import conditional_logits
from fa_evaluate.baselines.linear import (
    known_only,
    logistic,
    ridge,
    with_logits,
    with_probabilities,
)
from fa_evaluate.baselines.neighbours import neighbours
from fa_evaluate.baselines.training import Predictor, Training, sigmoid

__all__ = ["BASELINES", "Fit", "Predictor", "Training", "sigmoid"]

Fit = Callable[[Training, np.ndarray, np.ndarray], Predictor]


def masked(_: Training, __: np.ndarray, unknown: np.ndarray) -> Predictor:
    """The unrefined model with the known outputs clamped: the unknown ones don't move."""
    return lambda logits, _: sigmoid(logits[:, unknown])


BASELINES: dict[str, tuple[str, Fit]] = {
    "masked output": ("weights", masked),
    "label ridge": ("statistics", functools.partial(ridge, inputs=known_only, strength=0.01)),
    "label logistic": ("trained", functools.partial(logistic, inputs=known_only, strength=0.02)),
    "ridge on probabilities and known": (
        "statistics", functools.partial(ridge, inputs=with_probabilities, strength=0.01),
    ),
    "ridge on logits and known": (
        "statistics", functools.partial(ridge, inputs=with_logits, strength=0.003),
    ),
    "Gaussian-conditional logits": ("statistics", conditional_logits),
    "logistic on logits and known": (
        "trained", functools.partial(logistic, inputs=with_logits, strength=0.02),
    ),
    "nearest neighbours in labels": ("statistics", neighbours),
}  # fmt: skip
"""Name to what it uses and function. All but the first are fitted anew for every known set."""
