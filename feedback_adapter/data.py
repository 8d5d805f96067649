"""Deprecated: the readers of data folders are in the distribution feedback-adapter-evaluate now.

This name is kept for one release, so that programs that import it go on. It hands on what the
entry point `data` of the group `feedback_adapter_moved` names.
"""

from __future__ import annotations

import warnings
from typing import Any

from feedback_adapter.installed import entry_points


def __getattr__(name: str) -> Any:
    """A reader, from where it is now, if the distribution that has it is installed."""
    if name.startswith("__"):
        raise AttributeError(name)
    found = [point for point in entry_points("feedback_adapter_moved") if point.name == "data"]
    if not found:
        raise ImportError(
            "The readers of data folders have moved out of feedback_adapter: install the "
            "distribution feedback-adapter-evaluate, and import fa_evaluate.data."
        )
    warnings.warn(
        f"feedback_adapter.data has moved: import {found[0].module} instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(found[0].load(), name)
