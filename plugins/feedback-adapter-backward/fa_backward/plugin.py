"""What this distribution registers with feedback-adapter."""

from __future__ import annotations

from fa_backward.net import LIBRARY, build
from fa_backward.place import Place
from fa_backward.strategy import BackwardOptions, BackwardStrategy, suits
from feedback_adapter.hookspecs import ArchitectureSpec, EvidenceSpec, StrategySpec, hookimpl

__all__ = [
    "feedback_adapter_architectures",
    "feedback_adapter_evidence_types",
    "feedback_adapter_strategies",
]


@hookimpl
def feedback_adapter_evidence_types() -> list[EvidenceSpec]:
    """The evidence of this plugin."""
    return [EvidenceSpec("place", Place, "where the object is: left, upper right, a box", Place)]


@hookimpl
def feedback_adapter_strategies() -> list[StrategySpec]:
    """The strategy of this plugin."""
    return [
        StrategySpec(
            "backward",
            BackwardStrategy,
            BackwardOptions,
            "explains the image by objects (a generative backward pass)",
            uses="trained",
            suits=suits,
        )
    ]


@hookimpl
def feedback_adapter_architectures() -> list[ArchitectureSpec]:
    """The nets of this plugin, as checkpoints name them."""
    return [ArchitectureSpec(LIBRARY, build, "plain nets with a generative model: generative")]
