"""What this distribution registers with feedback-adapter."""

from __future__ import annotations

from fa_dfm.checkpoints import LIBRARY, build
from fa_dfm.strategy import DFMOptions, DFMStrategy, suits
from feedback_adapter.hookspecs import ArchitectureSpec, StrategySpec, hookimpl

__all__ = ["feedback_adapter_architectures", "feedback_adapter_strategies"]


@hookimpl
def feedback_adapter_strategies() -> list[StrategySpec]:
    """The strategy of this plugin."""
    return [
        StrategySpec(
            "dfm",
            DFMStrategy,
            DFMOptions,
            "a network that was trained to look again takes in what is known",
            uses="trained",
            suits=suits,
        )
    ]


@hookimpl
def feedback_adapter_architectures() -> list[ArchitectureSpec]:
    """The networks of this plugin, as checkpoints name them."""
    summary = "networks that look again: small-view, unet, small-resnet, or a model of timm"
    return [ArchitectureSpec(LIBRARY, build, summary)]
