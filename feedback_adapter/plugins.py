"""Loading plugins safely, and looking up what they add by name."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib.metadata
import itertools
import os
import sys
from collections.abc import Callable, Generator
from typing import Any, Literal

import pluggy

from feedback_adapter import builtin, hookspecs, installed
from feedback_adapter.errors import PluginError, did_you_mean
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.hookspecs import (
    GROUP,
    ArchitectureSpec,
    CheckpointSpec,
    EvidenceSpec,
    StrategySpec,
)
from feedback_adapter.strategies.base import Strategy

__all__ = ["PluginInfo", "Plugins", "checkpoint", "evidence_type", "plugins", "scoped", "strategy"]

STRICT = "FEEDBACK_ADAPTER_STRICT_PLUGINS"
_MOST = 1000
"""Specs that a hook may yield: a generator without end must not hang the program."""

_HOOKS: dict[str, tuple[str, type[Any]]] = {
    "evidence": ("feedback_adapter_evidence_types", EvidenceSpec),
    "strategies": ("feedback_adapter_strategies", StrategySpec),
    "checkpoints": ("feedback_adapter_checkpoints", CheckpointSpec),
    "architectures": ("feedback_adapter_architectures", ArchitectureSpec),
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
    """The plugins of this process. One that fails is listed, and the others work.

    Args:
        entry_points: Whether to load those of installed distributions.

    Raises:
        PluginError: A plugin fails, and FEEDBACK_ADAPTER_STRICT_PLUGINS=1.
    """

    def __init__(self, *, entry_points: bool = True) -> None:
        self._infos: list[PluginInfo] = []
        self._specs: dict[str, dict[str, tuple[Any, str]]] = {kind: {} for kind in _HOOKS}
        self.register(builtin, "builtin", "feedback-adapter")
        if entry_points:
            for point in installed.entry_points(GROUP):
                self._add(point.load, point.name, *installed.origin(point))

    def register(self, plugin: Any, name: str, distribution: str = "?", version: str = "") -> None:
        """Add a plugin: a module or object with hook implementations.

        Raises:
            PluginError: It fails or a name of its is taken, in strict mode; otherwise `infos`
                says so, and nothing of it is added.
        """
        self._add(lambda: plugin, name, distribution, version or _version(distribution))

    def _add(self, load: Callable[[], Any], name: str, distribution: str, version: str) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints is nobody's output
                added = self._ask(load(), name, distribution)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end the program
            self._failed(name, distribution, version, error)
            return
        for kind, specs in added.items():
            self._specs[kind] |= {name: (spec, distribution) for name, spec in specs.items()}
        provides = {kind: tuple(specs) for kind, specs in added.items() if specs}
        self._infos.append(PluginInfo(name, distribution, version, "OK", provides=provides))

    def _ask(self, plugin: Any, name: str, distribution: str) -> dict[str, dict[str, Any]]:
        """What a plugin adds, by kind and name, after every check."""
        for info in self._infos:
            if info.name == name and info.status == "OK":
                raise PluginError(
                    f"Two plugins are called {name!r}: one of {info.distribution!r} and one of "
                    f"{distribution!r}. Uninstall one of them, or rename its entry point."
                )
        manager = pluggy.PluginManager(GROUP)  # of its own: no plugin sees another one
        manager.add_hookspecs(hookspecs)
        manager.register(plugin, name)
        manager.check_pending()
        added: dict[str, dict[str, Any]] = {}
        for kind, (hook, wanted) in _HOOKS.items():
            specs: list[Any] = []
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                specs += itertools.islice(implementation.function(), _MOST + 1)
            if len(specs) > _MOST:
                raise ValueError(f"{hook} yields more than {_MOST:,} specs")
            for spec in specs:
                if not isinstance(spec, wanted):
                    raise TypeError(
                        f"{hook} must yield {wanted.__name__}, not {type(spec).__name__}"
                    )
                _check(spec)
            names = [spec.name for spec in specs]
            self._check_names(kind, names, hook, distribution)
            added[kind] = dict(zip(names, specs, strict=True))
        return added

    def _check_names(self, kind: str, names: list[str], hook: str, distribution: str) -> None:
        for name, count in collections.Counter(names).items():
            if count > 1:
                raise ValueError(f"{hook} yields {name!r} more than once")
            if name in self._specs[kind]:
                raise PluginError(
                    f"Two plugins add {kind} {name!r}: {self._specs[kind][name][1]!r} and "
                    f"{distribution!r}. Uninstall one of them, or rename what it adds."
                )

    def _failed(self, name: str, distribution: str, version: str, error: BaseException) -> None:
        reason = installed.reason(error)
        if os.environ.get(STRICT) == "1":
            raise PluginError(
                f"Plugin {name!r} of {distribution!r} failed: {reason}. "
                f"Fix or uninstall it, or unset {STRICT} to go on without it."
            ) from error
        self._infos.append(PluginInfo(name, distribution, version, "FAILED", reason))

    def infos(self) -> list[PluginInfo]:
        """Every plugin found, the failed ones included."""
        return list(self._infos)

    def get(self, kind: str, name: str) -> Any:
        """The spec of that name: `kind` is evidence, strategies, checkpoints or architectures.

        Raises:
            PluginError: There is none of that name.
        """
        specs = self._specs[kind]
        if not isinstance(name, str) or name not in specs:
            failed = [info for info in self._infos if info.status == "FAILED"]
            note = "".join(
                f" Plugin {info.name!r} failed to load ({info.reason})." for info in failed
            )
            one = "strategy" if kind == "strategies" else kind.removesuffix("s")
            raise PluginError(f"There is no {one} {name!r:.80}. {did_you_mean(name, specs)}{note}")
        return specs[name][0]

    def distribution(self, kind: type[Any]) -> str | None:
        """The distribution of the plugin that a class is of; `None` if it is none's."""
        package = kind.__module__.partition(".")[0]
        found = [*self._specs["strategies"].values(), *self._specs["evidence"].values()]
        for spec, distribution in found:
            registered = spec.strategy if isinstance(spec, StrategySpec) else spec.type
            if package == registered.__module__.partition(".")[0] != __name__.partition(".")[0]:
                return distribution
        return None

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
            name = str(getattr(plugin, "__name__", f"{type(plugin).__name__}-{index}"))
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


def _check(spec: Any) -> None:
    """Refuse, with a `TypeError`, a spec that the program would stumble over later."""
    name = spec.name
    plain = type(name) is str and name.isprintable() and not set(name) & set(" =")
    needs = {"name": (bool(plain and name), "text without spaces and '='")}
    needs["summary"] = isinstance(spec.summary, str), "one line of text"
    if isinstance(spec, EvidenceSpec):
        needs["type"] = _is_class(spec.type, Evidence), "a subclass of Evidence"
        needs["parse"] = spec.parse is None or callable(spec.parse), "a function or None"
    elif isinstance(spec, StrategySpec):
        needs["strategy"] = _is_class(spec.strategy, Strategy), "a subclass of Strategy"
        needs["suits"] = spec.suits is None or callable(spec.suits), "a function or None"
        made = spec.options() if isinstance(spec.options, type) else None
        fine = dataclasses.is_dataclass(made) and made.__dataclass_params__.frozen  # pyright: ignore
        needs["options"] = bool(fine), "a frozen dataclass"
    elif isinstance(spec, CheckpointSpec):
        needs["path"] = isinstance(spec.path, (str, os.PathLike)), "a folder"
    elif isinstance(spec, ArchitectureSpec):
        needs["build"] = callable(spec.build), "a function"
    for field, (fine, possible) in needs.items():
        if not fine:
            given = f"{type(spec).__name__}({field}={getattr(spec, field)!r:.80})"
            raise TypeError(f"{given}: it must be {possible}")


def _is_class(value: Any, base: type[Any]) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "?"
