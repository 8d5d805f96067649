"""What a check raises when a promise is broken."""

from __future__ import annotations

from torch import Tensor

from feedback_adapter.errors import FeedbackAdapterError


class ConformanceError(FeedbackAdapterError, AssertionError):
    """A plugin breaks a promise that the library relies on."""


def require(fine: bool, broken: str) -> None:
    """Raise a `ConformanceError` that says what is broken, unless all is fine."""
    if not fine:
        raise ConformanceError(f"Broken promise: {broken}.")


def close(value: Tensor, expected: Tensor, broken: str, atol: float = 1e-9) -> None:
    """Raise a `ConformanceError` unless two tensors have one shape and differ by `atol` at most."""
    same_shape = value.shape == expected.shape
    apart = float((value - expected).abs().amax()) if same_shape and value.numel() else 0.0
    require(same_shape and apart <= atol, f"{broken} (by {apart:.1e} at most)")
