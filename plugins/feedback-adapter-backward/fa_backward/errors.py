"""What can go wrong here."""

from feedback_adapter.errors import FeedbackAdapterError

__all__ = ["BackwardError"]


class BackwardError(FeedbackAdapterError):
    """A model, a scene or an option that the generative backward pass can't work with."""
