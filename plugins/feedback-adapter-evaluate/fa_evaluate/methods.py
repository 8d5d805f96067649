"""Which strategies a protocol measures, by the names that reports use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fa_evaluate.request import Request
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import OptionsError, did_you_mean
from feedback_adapter.evidence.labels import Labels
from feedback_adapter.hookspecs import StrategySpec, Uses
from feedback_adapter.plugins import plugins, strategy
from feedback_adapter.sites import Inputs
from feedback_adapter.strategies.base import Facts

__all__ = ["ALONE", "REFERENCE", "strategies_of", "uses_of"]

ALONE = ", network alone"
"""What the name of a method ends in where what is known isn't held fixed in what it gave."""

REFERENCE = "-reference"
"""What the name of a method ends in that is a strategy in its published form."""


def uses_of(arguments: Mapping[str, Any], adapter: Adapter) -> Uses:
    """What a method uses beside the evidence, from its arguments of `Adapter.refine`. See `Row`."""
    name = arguments.get("strategy") or adapter.defaults.strategy
    return strategy(name).uses if name is not None else "weights"


def strategies_of(request: Request) -> dict[str, dict[str, Any]]:
    """Arguments of `Adapter.refine` for each strategy to measure, by the name to report.

    By default these are all strategies that suit the model or have a published form, and these
    forms, which are asked for as `NAME-reference`. The published forms take their step size and
    number of steps from the checkpoint (`refine.reference` of its config, tuned on its dev
    split), as the paper tuned them. The others have the checkpoint's options; where it has none for
    a strategy, those for a strategy with the same kind of options.

    Raises:
        OptionsError: A strategy has no published form.
        PluginError: There is no strategy of a name that was asked for.
    """
    adapter = request.adapter
    chosen: dict[str, dict[str, Any]] = {}
    for name in request.strategies or _usual(adapter):
        own = name.removesuffix(REFERENCE)
        spec = strategy(own)
        if own == name:
            options = {**_options(spec, adapter), **request.options}
            chosen[name] = {"strategy": own, "pivots": request.pivots, **options}
        else:
            if not _published(spec):
                forms = [s.name + REFERENCE for s in plugins().all("strategies") if _published(s)]
                raise OptionsError(f"{own!r} has no published form. {did_you_mean(name, forms)}")
            changed = dict(adapter.defaults.reference.get(own, {}))
            tuned = changed.pop("pivots", None)
            published = spec.options.reference(**changed)
            pivots = request.pivots or tuned
            chosen[name] = {"strategy": own, "pivots": pivots, "options": published}
    return chosen


def _usual(adapter: Adapter) -> list[str]:
    """Every strategy that suits the model or has a published form, then the published forms."""
    specs: list[StrategySpec] = plugins().all("strategies")
    published = [spec.name for spec in specs if _published(spec)]
    facts = _facts(adapter)
    suited = [spec.name for spec in specs if spec.suits and spec.suits(facts) is not None]
    names = [spec.name for spec in specs if spec.name in (*suited, *published)]
    return [*names, *(name + REFERENCE for name in published)]


def _published(spec: StrategySpec) -> bool:
    return hasattr(spec.options, "reference")


def _facts(adapter: Adapter) -> Facts:
    """One blank image of which the first label is known."""
    size = adapter.transform.size if adapter.transform is not None else (1, 1)
    inputs = Inputs.of(torch.zeros(1, 3, *size))
    name, output = next((n, o) for n, o in adapter.outputs.items() if o.kind != "tokens")
    evidence = Labels({output.labels[0]: 1}, output=name).bind(adapter.outputs, 1)
    return Facts(adapter.model, adapter.outputs, inputs, evidence, adapter.priors)


def _options(spec: StrategySpec, adapter: Adapter) -> Mapping[str, Any]:
    """What the checkpoint has for another strategy, where it has nothing for this one."""
    known = {adapter.defaults.strategy: adapter.defaults.options, **adapter.defaults.others}
    if spec.name in known:
        return {}  # `refine` takes them by itself
    kind = spec.options.__mro__[1]
    for other in plugins().all("strategies"):
        if other.name in known and kind is not object and issubclass(other.options, kind):
            return known[other.name]
    return {}
