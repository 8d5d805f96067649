"""`feedback-adapter demo`."""

from __future__ import annotations

__all__ = ["demo"]


def demo() -> None:
    """See predictions on real photos get better."""
