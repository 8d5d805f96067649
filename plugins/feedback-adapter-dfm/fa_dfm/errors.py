"""What can go wrong in this plugin, beside the core's own errors."""

from __future__ import annotations

from feedback_adapter.errors import FeedbackAdapterError

__all__ = ["ConversionError", "KnownError"]


class ConversionError(FeedbackAdapterError, TypeError):
    """`convert` was given a model that it can't put feedback into."""


class KnownError(FeedbackAdapterError, ValueError):
    """What is said to be known doesn't fit the images or the outputs of the network."""
