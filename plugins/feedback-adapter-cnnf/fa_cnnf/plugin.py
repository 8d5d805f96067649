"""What this distribution registers with feedback-adapter."""

from __future__ import annotations

from fa_cnnf.strategy import CNNFOptions, CNNFStrategy
from feedback_adapter.hookspecs import StrategySpec, hookimpl

__all__ = ["feedback_adapter_strategies"]


@hookimpl
def feedback_adapter_strategies() -> list[StrategySpec]:
    """The strategy of this plugin."""
    return [
        StrategySpec(
            "cnnf", CNNFStrategy, CNNFOptions, "feedback generates from what is known (CNN-F)"
        )
    ]
