"""Which strategies a protocol measures, by the names that reports use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fa_evaluate.request import Request
from feedback_adapter.strategies import LayerwiseOptions, ResidualOptions

__all__ = ["REFERENCES", "strategies_of", "tier_of"]

REFERENCES = {
    "layerwise-reference": ("layerwise", LayerwiseOptions),
    "residual-reference": ("residual", ResidualOptions),
}
"""The published forms: strategy, and its options, which have `reference()`."""

_STATISTICS = ("posterior",)
"""Strategies that use statistics of a training set."""


_DESCENTS = ("residual", "layerwise")
"""Strategies that share the checkpoint's options."""


def tier_of(arguments: Mapping[str, Any]) -> str:
    """The tier of arguments of `Adapter.refine`. See `Row`."""
    return "B" if arguments.get("strategy") in _STATISTICS else "A"


def strategies_of(request: Request) -> dict[str, dict[str, Any]]:
    """Arguments of `Adapter.refine` for each strategy to measure.

    The published forms take their step size and number of steps from the checkpoint
    (`refine.reference` in config.json, tuned on its dev split), as the paper tuned them. The
    others have the checkpoint's options; what it has for its own strategy, strategies of that
    kind take, too.
    """
    adapter, defaults = request.adapter, request.adapter.defaults
    descent = defaults.others.get("residual", {})
    if defaults.strategy in _DESCENTS:
        descent = defaults.options
    tuned = (request.config.get("refine") or {}).get("reference", {})
    usual = [
        "newton",
        "residual",
        "layerwise",
        *(["posterior"] if adapter.priors else []),
        *REFERENCES,
    ]
    chosen: dict[str, dict[str, Any]] = {}
    for name in request.strategies or usual:
        if name in REFERENCES:
            plain, kind = REFERENCES[name]
            own = dict(tuned.get(plain, {}))
            at = request.pivots or own.pop("pivots", None)
            chosen[name] = {"strategy": plain, "pivots": at, "options": kind.reference(**own)}
        else:
            options = {**(descent if name in _DESCENTS else {}), **request.options}
            chosen[name] = {"strategy": name, "pivots": request.pivots, **options}
    return chosen
