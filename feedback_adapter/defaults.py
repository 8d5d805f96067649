"""What `refine` does where it isn't told, and options by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from feedback_adapter.errors import OptionsError, did_you_mean

__all__ = ["Defaults"]


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What `refine` does where it isn't told.

    Args:
        strategy: Name of the strategy.
        pivots: Site names, or `"auto"`.
        options: Values for the strategy's options, by name.
        others: Values for the options of other strategies, by the strategy's name.
        reference: The settings of the published forms, tuned for this model, by the strategy's
            name: `"pivots"`, `"steps"`, `"step_size"`.
    """

    strategy: str = "newton"
    pivots: tuple[str, ...] | str = "auto"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    others: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, Any]]
    )
    reference: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, Any]]
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
        except TypeError as error:  # text where a number should be, from the command line
            raise OptionsError(f"{strategy!r} can't take {dict(overrides)}: {error}.") from error
