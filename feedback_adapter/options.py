"""Checking options: one function, and the rules that most options need.

Options are frozen dataclasses. What the command line or a checkpoint's config passes on may be of
any type, so a rule has to cope with text where a number should be.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from feedback_adapter.errors import OptionsError

__all__ = [
    "Rule",
    "above",
    "at_least",
    "check",
    "instance",
    "one_of",
    "optional",
    "renamed",
    "whole",
    "within",
]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an option's value must be.

    Args:
        holds: Whether a value is possible.
        possible: The possible values in words, as the end of the sentence "it must be ...".
    """

    holds: Callable[[Any], bool]
    possible: str


def check(options: Any, rules: Mapping[str, Rule]) -> None:
    """Check options, usually in their `__post_init__`.

    Args:
        options: Any object with options as attributes.
        rules: What the value of each option must be, by the option's name.

    Raises:
        OptionsError: A value is not possible; the message names the option, the value that was
            given, and what is possible.

    Example:
        >>> import types
        >>> check(types.SimpleNamespace(steps=3), {"steps": whole(0)})
        >>> check(types.SimpleNamespace(steps=-1), {"steps": whole(0)})
        Traceback (most recent call last):
        feedback_adapter.errors.OptionsError: steps=-1 is out of range: it must be a whole \
number from 0 on.
    """
    for name, rule in rules.items():
        value = getattr(options, name)
        if not rule.holds(value):
            raise OptionsError(f"{name}={value!r} is out of range: it must be {rule.possible}.")


def whole(least: int) -> Rule:
    """A whole number, at least as large as `least`."""
    return Rule(
        lambda value: _is_number(value, numbers.Integral) and value >= least,
        f"a whole number from {least} on",
    )


def above(bound: float) -> Rule:
    """A finite number larger than `bound`."""
    return Rule(lambda value: _is_number(value) and value > bound, f"above {bound:g}")


def at_least(bound: float) -> Rule:
    """A finite number, `bound` or larger."""
    return Rule(lambda value: _is_number(value) and value >= bound, f"at least {bound:g}")


def within(low: float, high: float, *, ends: str = "[]") -> Rule:
    """A number between two others.

    Args:
        low: The smallest.
        high: The largest.
        ends: Whether the ends belong to it, as mathematicians write it: `"[]"`, `"[)"`, `"(]"`
            or `"()"`.
    """

    def holds(value: Any) -> bool:
        if not _is_number(value) or not low <= value <= high:
            return False
        return not (ends[0] == "(" and value == low) and not (ends[1] == ")" and value == high)

    return Rule(holds, f"in {ends[0]}{low:g}, {high:g}{ends[1]}")


def one_of(*values: object) -> Rule:
    """One of a few values."""
    *rest, last = map(repr, values)
    return Rule(lambda value: value in values, f"{', '.join(rest)} or {last}" if rest else last)


def instance(kind: type[Any], possible: str) -> Rule:
    """An instance of a class; `possible` says which, in words."""
    return Rule(lambda value: isinstance(value, kind), possible)


def optional(rule: Rule) -> Rule:
    """What the rule says, or `None`."""
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.possible}, or None")


def renamed(options: Any, old: str, new: str) -> None:
    """Take over the value of an option that was given by its old name.

    The old name is a field that is `None` where it isn't given. Call this in `__post_init__`,
    before `check`.

    Args:
        options: Frozen dataclass of options.
        old: The old name.
        new: The new name.
    """
    value = getattr(options, old)
    if value is None:
        return
    warnings.warn(
        f"The option {old}= is now called {new}=, and its old name goes in the next release.",
        DeprecationWarning,
        stacklevel=4,
    )
    object.__setattr__(options, new, value)
    object.__setattr__(options, old, None)


def _is_number(value: object, kind: type[numbers.Real] = numbers.Real) -> bool:
    """Whether it is a finite number that a float can hold; True and False aren't."""
    try:
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
