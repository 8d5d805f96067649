"""The hooks a plugin can implement, and the frozen dataclasses they yield.

A plugin is a module or object named by an entry point of the group
`feedback_adapter` in its distribution's metadata. Each hook is a function, marked
with `feedback_adapter.hookimpl`, that returns an iterable of specs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pluggy

from feedback_adapter.errors import PluginError

if TYPE_CHECKING:
    from torch import nn

    from feedback_adapter.evidence.base import Evidence
    from feedback_adapter.strategies.base import Facts, Strategy

__all__ = [
    "GROUP",
    "ArchitectureSpec",
    "CheckpointSpec",
    "EvidenceSpec",
    "StrategySpec",
    "Uses",
    "feedback_adapter_architectures",
    "feedback_adapter_checkpoints",
    "feedback_adapter_evidence_types",
    "feedback_adapter_strategies",
    "hookimpl",
]

GROUP = "feedback_adapter"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Uses = Literal["weights", "statistics", "trained"]
"""What a strategy needs beside the image and what is known."""


@dataclasses.dataclass(frozen=True)
class EvidenceSpec:
    """A kind of evidence.

    Args:
        name: Unique, lower-case; `--evidence NAME=TEXT` uses it on the command line.
        type: The `Evidence` subclass.
        summary: One line for lists.
        parse: Makes evidence for one image from the command line's TEXT; `None`
            where the command line can't express it.
    """

    name: str
    type: type[Evidence]
    summary: str
    parse: Callable[[str], Evidence] | None = None


@dataclasses.dataclass(frozen=True)
class StrategySpec:
    """A way of refining.

    Args:
        name: Unique, lower-case; what `refine(strategy=...)` takes.
        strategy: The `Strategy` subclass.
        options: Its frozen dataclass of options, constructible without arguments.
        summary: One line for lists.
        uses: What it needs beside the image and what is known: only the model's `"weights"`,
            label `"statistics"` of a training set, or something `"trained"` for it. Reports sort
            their rows by this.
        suits: How well it suits a problem, as a number, or `None` where it should only run when
            it is named. The highest number is the default. From 0 to 10 for strategies that work
            on any model; the checkpoint's own choice counts 10; more than 10 where the adapter
            has something that only this strategy makes use of. It may be asked of one image, so
            it must be quick and must not run the model.

    Raises:
        PluginError: `uses` isn't one of the three.
    """

    name: str
    strategy: type[Strategy[Any]]
    options: type[Any]
    summary: str
    uses: Uses = "weights"
    suits: Callable[[Facts], float | None] | None = None

    def __post_init__(self) -> None:
        if self.uses not in get_args(Uses):
            raise PluginError(
                f"Strategy {self.name!r} has uses={self.uses!r}: {get_args(Uses)} are possible."
            )


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """A trained checkpoint.

    Args:
        name: Unique; what `feedback_adapter.load(NAME)` takes.
        path: Its folder, as `Adapter.save` writes it.
        summary: One line for lists.
    """

    name: str
    path: Path
    summary: str


@dataclasses.dataclass(frozen=True)
class ArchitectureSpec:
    """A library of models that checkpoints name: `architecture.library` in the config.

    Args:
        name: Unique.
        build: Takes a model's name there and its keyword arguments, returns the model with
            any weights. It must not import what a name says: a config is only data.
        summary: One line for lists.
    """

    name: str
    build: Callable[[str, Mapping[str, Any]], nn.Module]
    summary: str


@hookspec
def feedback_adapter_evidence_types() -> Iterable[EvidenceSpec]:  # pyright: ignore[reportReturnType]
    """Yield the kinds of evidence that this plugin adds."""


@hookspec
def feedback_adapter_strategies() -> Iterable[StrategySpec]:  # pyright: ignore[reportReturnType]
    """Yield the strategies that this plugin adds."""


@hookspec
def feedback_adapter_checkpoints() -> Iterable[CheckpointSpec]:  # pyright: ignore[reportReturnType]
    """Yield the checkpoints that this plugin adds."""


@hookspec
def feedback_adapter_architectures() -> Iterable[ArchitectureSpec]:  # pyright: ignore[reportReturnType]
    """Yield the libraries of models that this plugin adds."""
