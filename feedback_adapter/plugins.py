"""Loading plugins safely, and looking up what they add by name."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
from collections.abc import Generator
from typing import Any, Literal

import pluggy

from feedback_adapter import builtin, hookspecs
from feedback_adapter.errors import PluginError, did_you_mean
from feedback_adapter.hookspecs import (
    GROUP,
    ArchitectureSpec,
    CheckpointSpec,
    EvidenceSpec,
    StrategySpec,
)

__all__ = [
    "PluginInfo",
    "Plugins",
    "checkpoint",
    "evidence_type",
    "plugins",
    "scoped",
    "strategy",
]

STRICT = "FEEDBACK_ADAPTER_STRICT_PLUGINS"
_HOOKS = {
    "evidence": "feedback_adapter_evidence_types",
    "strategies": "feedback_adapter_strategies",
    "checkpoints": "feedback_adapter_checkpoints",
    "architectures": "feedback_adapter_architectures",
}


@dataclasses.dataclass(frozen=True)
class PluginInfo:
    """One plugin, working or not.

    Args:
        name: Its entry point's name.
        distribution: The installed distribution that it came with.
        version: That distribution's version.
        status: `"OK"` or `"FAILED"`.
        reason: Why it failed; empty if it didn't.
        provides: `{"evidence" | "strategies" | "checkpoints" | "architectures": names}`.
    """

    name: str
    distribution: str
    version: str
    status: Literal["OK", "FAILED"]
    reason: str = ""
    provides: dict[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict[str, tuple[str, ...]]
    )


class Plugins:
    """The plugins of this process.

    Args:
        entry_points: Whether to load those of installed distributions.

    Raises:
        PluginError: A plugin fails and FEEDBACK_ADAPTER_STRICT_PLUGINS=1, or two plugins
            use one name.
    """

    def __init__(self, *, entry_points: bool = True) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}
        self._specs: dict[str, dict[str, tuple[Any, str]]] = {kind: {} for kind in _HOOKS}
        self.register(builtin, "builtin", "feedback-adapter")
        if entry_points:
            found = importlib.metadata.entry_points(group=GROUP)
            for point in sorted(found, key=lambda point: point.name):
                self._load(point)

    def _load(self, point: importlib.metadata.EntryPoint) -> None:
        distribution = point.dist.name if point.dist else "?"
        version = point.dist.version if point.dist else "?"
        try:
            plugin = point.load()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end the program
            self._failed(point.name, distribution, version, error)
            return
        self.register(plugin, point.name, distribution, version)

    def register(self, plugin: Any, name: str, distribution: str = "?", version: str = "") -> None:
        """Add a plugin: a module or object with hook implementations.

        Raises:
            PluginError: A name of its is taken; or it fails, in strict mode.
        """
        if name in self._infos:
            raise PluginError(
                f"Two plugins are called {name!r}: one of {self._infos[name].distribution!r} and "
                f"one of {distribution!r}. Uninstall one of them, or rename its entry point."
            )
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            added = {kind: self._ask(plugin, hook) for kind, hook in _HOOKS.items()}
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._failed(name, distribution, version, error)
            return
        for kind, specs in added.items():
            for spec in specs:
                taken = self._specs[kind].get(spec.name)
                if taken is not None:
                    self._manager.unregister(name=name)
                    raise PluginError(
                        f"Two plugins add {kind} {spec.name!r}: {taken[1]!r} and {distribution!r}. "
                        "Uninstall one of them, or rename what it adds."
                    )
        for kind, specs in added.items():
            self._specs[kind] |= {spec.name: (spec, distribution) for spec in specs}
        provides = {
            kind: tuple(spec.name for spec in specs) for kind, specs in added.items() if specs
        }
        version = version or _version(distribution)
        self._infos[name] = PluginInfo(name, distribution, version, "OK", provides=provides)

    def _ask(self, plugin: Any, hook: str) -> list[Any]:
        wanted = {
            "feedback_adapter_evidence_types": EvidenceSpec,
            "feedback_adapter_strategies": StrategySpec,
            "feedback_adapter_checkpoints": CheckpointSpec,
            "feedback_adapter_architectures": ArchitectureSpec,
        }[hook]
        specs: list[Any] = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin is plugin:
                specs += implementation.function()
        for spec in specs:
            if not isinstance(spec, wanted):
                raise TypeError(f"{hook} must yield {wanted.__name__}, not {type(spec).__name__}")
        names = [spec.name for spec in specs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{hook} yields {name!r} more than once")
        return specs

    def _failed(self, name: str, distribution: str, version: str, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}"
        if os.environ.get(STRICT) == "1":
            raise PluginError(
                f"Plugin {name!r} of {distribution!r} failed: {reason}. "
                f"Fix or uninstall it, or unset {STRICT} to go on without it."
            ) from error
        self._infos[name] = PluginInfo(name, distribution, version, "FAILED", reason)

    def infos(self) -> list[PluginInfo]:
        """Every plugin found, the failed ones included."""
        return list(self._infos.values())

    def get(self, kind: str, name: str) -> Any:
        """The spec of that name: `kind` is evidence, strategies, checkpoints or architectures.

        Raises:
            PluginError: There is none of that name.
        """
        specs = self._specs[kind]
        if name not in specs:
            failed = [info for info in self._infos.values() if info.status == "FAILED"]
            note = "".join(
                f" Plugin {info.name!r} failed to load ({info.reason})." for info in failed
            )
            raise PluginError(f"There is no {kind} {name!r}. {did_you_mean(name, specs)}{note}")
        return specs[name][0]

    def all(self, kind: str) -> list[Any]:
        """All specs of a kind."""
        return [spec for spec, _ in self._specs[kind].values()]


_current: Plugins | None = None


def plugins() -> Plugins:
    """The plugins of this process, loaded when first needed."""
    global _current
    if _current is None:
        _current = Plugins()
    return _current


@contextlib.contextmanager
def scoped(*added: Any, entry_points: bool = False) -> Generator[Plugins]:
    """Other plugins for the time of a `with`: the built-in ones and those given. For tests."""
    global _current
    before, _current = _current, Plugins(entry_points=entry_points)
    try:
        for index, plugin in enumerate(added):
            name = getattr(plugin, "__name__", f"{type(plugin).__name__}-{index}")
            _current.register(plugin, name, distribution=name)
        yield _current
    finally:
        _current = before


def strategy(name: str) -> StrategySpec:
    """The strategy of that name. Raises `PluginError` if there is none."""
    return plugins().get("strategies", name)


def evidence_type(name: str) -> EvidenceSpec:
    """The kind of evidence of that name. Raises `PluginError` if there is none."""
    return plugins().get("evidence", name)


def checkpoint(name: str) -> CheckpointSpec:
    """The checkpoint of that name. Raises `PluginError` if there is none."""
    return plugins().get("checkpoints", name)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "?"
