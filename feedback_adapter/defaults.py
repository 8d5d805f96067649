"""What `refine` does where its arguments don't say: which strategy, which pivots, which options.

No strategy is named here. Which one is the default follows from what each says of itself in its
`StrategySpec`: `suits` gives a number for the problem at hand, and the highest number wins.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from feedback_adapter.errors import FeedbackAdapterError, OptionsError, PluginError, did_you_mean
from feedback_adapter.hookspecs import StrategySpec
from feedback_adapter.installed import reason
from feedback_adapter.strategies.base import Facts

__all__ = ["CHOSEN", "Defaults", "pick", "takes"]

Values = Mapping[str, Any]

CHOSEN = 10.0
"""What a checkpoint's own choice of a strategy counts, whatever that strategy says of itself."""


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What `refine` does where its arguments don't say.

    Args:
        strategy: Name of the strategy, or `None` for the one that suits best.
        pivots: Site names, or `"auto"`.
        options: Values for that strategy's options, by name.
        others: Values for the options of other strategies, by the strategy's name.
        reference: The settings of the published forms, tuned for this model, by the strategy's
            name: `"pivots"`, `"steps"`, `"step_size"`.
        calibration: `{output: {"scale": number, "bias": number}}`, see `Adapter.calibrate`.
    """

    strategy: str | None = None
    pivots: tuple[str, ...] | str = "auto"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    others: Mapping[str, Values] = dataclasses.field(default_factory=dict[str, Values])
    reference: Mapping[str, Values] = dataclasses.field(default_factory=dict[str, Values])
    calibration: Mapping[str, Mapping[str, float]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, float]]
    )

    def options_for(
        self, strategy: str, kind: type[Any], options: Any, overrides: Mapping[str, Any]
    ) -> Any:
        """The options a strategy runs with: those given, changed by single ones by name.

        Args:
            strategy: Name of the strategy.
            kind: Its frozen dataclass of options.
            options: Options, whole, or `None` for the defaults.
            overrides: Single values by name.

        Raises:
            OptionsError: Options of another strategy, or no such option.
        """
        if options is None:
            own = self.options if strategy == self.strategy else self.others.get(strategy, {})
            overrides = {**own, **overrides}
            options = kind()
        elif not isinstance(options, kind):
            raise OptionsError(
                f"strategy={strategy!r} takes {kind.__name__}, not {type(options).__name__}."
            )
        possible = [field.name for field in dataclasses.fields(options)]
        for key in overrides:
            if key not in possible:
                hint = did_you_mean(key, possible)
                raise OptionsError(f"{strategy!r} has no option {key!r}. {hint}")
        try:
            return dataclasses.replace(options, **overrides)
        except FeedbackAdapterError:
            raise
        except Exception as error:  # options of a plugin that don't check themselves
            given = f"{dict(overrides)!r:.200}"
            raise OptionsError(f"{strategy!r} can't take {given}: {reason(error)}.") from error


def takes(spec: StrategySpec, options: Any, overrides: Iterable[str]) -> bool:
    """Whether a strategy takes these options.

    Args:
        spec: The strategy.
        options: Options, whole, or `None`.
        overrides: Names of single options.
    """
    possible = {field.name for field in dataclasses.fields(spec.options)}
    return possible.issuperset(overrides) and (options is None or type(options) is spec.options)


def _suits(spec: StrategySpec, facts: Facts) -> float | None:
    """How well a strategy suits; one that can't say so doesn't, and the others go on."""
    number: Any = None
    try:
        number = spec.suits(facts) if spec.suits is not None else None
        if number is None or math.isfinite(number):
            return None if number is None else float(number)
        wrong = f"says {number!r}"
    except Exception as error:  # a plugin's function can do anything
        wrong = f"fails: {reason(error)}"
    kind = spec.strategy
    warnings.warn(
        f"Strategy {spec.name!r} ({kind.__module__}.{kind.__qualname__}) is left out: asked how "
        f"well it suits, it {wrong}. A number or None is possible.",
        RuntimeWarning,
        stacklevel=4,
    )
    return None


def pick(
    facts: Facts,
    defaults: Defaults,
    specs: Sequence[StrategySpec],
    options: Any,
    overrides: Mapping[str, Any],
) -> dict[str, list[int]]:
    """The strategy that suits each image best, of those that take the options that are given.

    Args:
        facts: What is known of the problem.
        defaults: Its `strategy`, the checkpoint's own choice, counts `CHOSEN`.
        specs: All strategies.
        options: Options, whole, or `None`.
        overrides: Single values by name.

    Returns:
        The indices of the images of each strategy, by its name. One strategy for no image.

    Raises:
        OptionsError: No strategy that suits takes these options.
        PluginError: The checkpoint's strategy isn't installed.
    """
    names = [spec.name for spec in specs]
    if defaults.strategy is not None and defaults.strategy not in names:
        raise PluginError(
            f"There is no strategy {defaults.strategy!r}, which this checkpoint was made for: "
            f"install the plugin that has it, or name another one of {names}."
        )
    able = [spec for spec in specs if takes(spec, options, overrides)]
    batch = facts.inputs.batch
    device = facts.inputs.images.device
    every = [facts.take(torch.tensor([i], device=device)) for i in range(batch)] or [facts]
    found: dict[str, list[int]] = {}
    for index, one in enumerate(every):
        best = _best(one, able, defaults.strategy)
        if best is None:
            raise _none_suits(specs, able, options, overrides)
        found.setdefault(best, []).extend([index] if batch else [])
    return found


def _best(facts: Facts, specs: Sequence[StrategySpec], chosen: str | None) -> str | None:
    """Name of the strategy that suits one image best; the first of equals."""
    best: tuple[float, str] | None = None
    for spec in specs:
        number = _suits(spec, facts)
        if spec.name == chosen:
            number = max(CHOSEN, number or 0.0)
        if number is not None and (best is None or number > best[0]):
            best = number, spec.name
    return None if best is None else best[1]


def _none_suits(
    specs: Sequence[StrategySpec],
    able: Sequence[StrategySpec],
    options: Any,
    overrides: Mapping[str, Any],
) -> OptionsError:
    """The error for options that no strategy takes that would be chosen."""
    possible = {field.name for spec in specs for field in dataclasses.fields(spec.options)}
    for key in overrides:
        if key not in possible:
            return OptionsError(f"There is no option {key!r}. {did_you_mean(key, possible)}")
    given = f"options={options!r}" if options is not None else f"the options {list(overrides)}"
    names = ", ".join(spec.name for spec in able)
    hint = f"These take them: {names}" if names else "No strategy takes all of them"
    return OptionsError(
        f"Name a strategy for {given}, since none that suits by itself takes them. {hint}."
    )
