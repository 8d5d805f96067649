"""Why a prediction moved: which evidence moved it, and where in the image."""

from feedback_adapter.explain.explaining import Asked, MissingCaptumError, can_explain, explain
from feedback_adapter.explain.explanation import Contribution, Explanation
from feedback_adapter.explain.where import Maps

__all__ = [
    "Asked",
    "Contribution",
    "Explanation",
    "Maps",
    "MissingCaptumError",
    "can_explain",
    "explain",
]
