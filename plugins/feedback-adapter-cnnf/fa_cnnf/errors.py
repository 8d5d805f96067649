"""What can go wrong in this plugin, beside the core's own errors."""

from __future__ import annotations

from collections.abc import Iterable

from feedback_adapter.errors import FeedbackAdapterError, SiteError, did_you_mean

__all__ = ["DecoderError", "FeedbackError", "UnsupportedModuleError", "no_such_site"]


class DecoderError(FeedbackAdapterError, ValueError):
    """A model or site that decoders can't be put on."""


class FeedbackError(SiteError, RuntimeError):
    """Feedback was asked for in an order that makes no sense, as by a pivot inside the loop."""


class UnsupportedModuleError(FeedbackAdapterError, TypeError):
    """`convert` met a module that has no feedback counterpart."""

    def __init__(self, path: str, module: object, why: str, supported: Iterable[str]) -> None:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        super().__init__(
            f"convert can't turn {path or 'the model'!r} ({kind}) around: {why} "
            f"Supported: {', '.join(supported)}. "
            "For any other model use fa_cnnf.TiedLoop, which takes its feedback from autograd."
        )


def no_such_site(name: str, possible: Iterable[str]) -> SiteError:
    """The error for a site that the feedback pass can't stop at."""
    return SiteError(f"Feedback can't stop at {name!r}. {did_you_mean(name, possible)}")
