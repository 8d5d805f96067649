"""What can go wrong in this package, in the family of the library's own errors."""

from __future__ import annotations

from feedback_adapter.errors import FeedbackAdapterError

__all__ = ["AnnotateError", "StaleError", "TooLargeError"]


class AnnotateError(FeedbackAdapterError):
    """A folder, an answer, a file of answers or a request that can't be used."""


class StaleError(AnnotateError):
    """An answer from a page that doesn't show what was answered last."""


class TooLargeError(AnnotateError):
    """A request that is larger than what is taken."""
