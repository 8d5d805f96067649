"""What this distribution registers with feedback-adapter."""

from __future__ import annotations

from fa_cnnf.checkpoints import LIBRARY, build
from fa_cnnf.strategy import CNNFOptions, CNNFStrategy
from feedback_adapter.hookspecs import ArchitectureSpec, StrategySpec, hookimpl

__all__ = ["feedback_adapter_architectures", "feedback_adapter_strategies"]


@hookimpl
def feedback_adapter_strategies() -> list[StrategySpec]:
    """The strategy of this plugin."""
    return [
        StrategySpec(
            "cnnf",
            CNNFStrategy,
            CNNFOptions,
            "feedback generates from what is known (CNN-F)",
            uses="trained",
        )
    ]


@hookimpl
def feedback_adapter_architectures() -> list[ArchitectureSpec]:
    """The nets of this plugin, as checkpoints name them."""
    return [ArchitectureSpec(LIBRARY, build, "nets with recurrent feedback: fashion, wrn-D-W")]
