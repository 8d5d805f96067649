"""What this distribution registers with feedback-adapter."""

from __future__ import annotations

from fa_backward.place import Place
from feedback_adapter.hookspecs import EvidenceSpec, hookimpl

__all__ = ["feedback_adapter_evidence_types"]


@hookimpl
def feedback_adapter_evidence_types() -> list[EvidenceSpec]:
    """The evidence of this plugin."""
    return [EvidenceSpec("place", Place, "where the object is: left, upper right, a box", Place)]
