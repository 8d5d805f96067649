"""Why a prediction moved: which evidence moved it."""

from feedback_adapter.explain.explaining import Asked, MissingCaptumError, explain
from feedback_adapter.explain.explanation import Contribution, Explanation

__all__ = ["Asked", "Contribution", "Explanation", "MissingCaptumError", "explain"]
