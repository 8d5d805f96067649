"""What the library itself registers, through the same hooks as any plugin."""

from __future__ import annotations

from feedback_adapter.evidence.labels import Labels, parse_labels
from feedback_adapter.hookspecs import EvidenceSpec, StrategySpec, hookimpl
from feedback_adapter.strategies.layerwise import Layerwise, LayerwiseOptions
from feedback_adapter.strategies.residual import Residual, ResidualOptions

__all__ = ["feedback_adapter_evidence_types", "feedback_adapter_strategies"]


@hookimpl
def feedback_adapter_evidence_types() -> list[EvidenceSpec]:
    """The kinds of evidence that come with the library."""
    return [
        EvidenceSpec("labels", Labels, "some labels are present, absent or likely", parse_labels)
    ]


@hookimpl
def feedback_adapter_strategies() -> list[StrategySpec]:
    """The strategies that come with the library."""
    return [
        StrategySpec(
            "residual", Residual, ResidualOptions, "add a change to every pivot, all at once"
        ),
        StrategySpec("layerwise", Layerwise, LayerwiseOptions, "move one pivot after the other"),
    ]
