"""What feedback has to beat: functions from training and test statistics to scores.

Each takes a `Task` and gives (images, unknown) scores, higher for likelier. Tiers: A uses the
model's weights and the evidence, B also statistics of the training set, C a trained module.
"""

from baselines.linear import (
    label_logistic,
    label_ridge,
    logit_logistic,
    logit_ridge,
    probability_ridge,
)
from baselines.neighbours import neighbours
from baselines.task import Task

__all__ = [
    "BASELINES",
    "Task",
    "label_logistic",
    "label_ridge",
    "logit_logistic",
    "logit_ridge",
    "neighbours",
    "probability_ridge",
]

BASELINES = {
    "label ridge": ("B", label_ridge),
    "label logistic": ("C", label_logistic),
    "ridge on probabilities and known": ("B", probability_ridge),
    "ridge on logits and known": ("B", logit_ridge),
    "logistic on logits and known": ("C", logit_logistic),
    "nearest neighbours in labels": ("B", neighbours),
}
"""Name to tier and function; those of tier C are trained for one fixed known set."""
