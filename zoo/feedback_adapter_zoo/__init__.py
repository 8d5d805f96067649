"""Trained checkpoints for feedback_adapter, registered through its own hook."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from feedback_adapter import hookimpl
from feedback_adapter.hookspecs import CheckpointSpec

__all__ = ["CHECKPOINTS", "feedback_adapter_checkpoints"]

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
"""Where the checkpoints are: one folder each."""


@hookimpl
def feedback_adapter_checkpoints() -> Iterable[CheckpointSpec]:
    """Yield every checkpoint folder, by name."""
    for config in sorted(CHECKPOINTS.glob("*/feedback_adapter.json")):
        content = json.loads(config.read_text(encoding="utf-8"))
        yield CheckpointSpec(content["name"], config.parent, content["summary"])
