"""Checking options: one function, and the rules that most options need.

Options are frozen dataclasses. What the command line or a checkpoint's config passes on may be of
any type, so a rule has to cope with text where a number should be.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from feedback_adapter.errors import OptionsError

__all__ = [
    "Rule",
    "above",
    "at_least",
    "check",
    "each",
    "flag",
    "instance",
    "one_of",
    "optional",
    "renamed",
    "whole",
    "within",
]


_MOST = 1e18


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an option's value must be.

    Args:
        holds: Whether a value is possible.
        possible: The possible values in words, as the end of the sentence "it must be ...".
        plain: Makes a possible value the plain Python one that it stands for.
    """

    holds: Callable[[Any], bool]
    possible: str
    plain: Callable[[Any], Any] = lambda value: value


def check(options: Any, rules: Mapping[str, Rule]) -> None:
    """Check options, usually in their `__post_init__`, and make their numbers Python's own.

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
number from 0 on, at most 1,000,000.
    """
    for name, rule in rules.items():
        value = getattr(options, name)
        if not rule.holds(value):
            raise OptionsError(
                f"{name}={value!r:.200} is out of range: it must be {rule.possible}."
            )
        object.__setattr__(options, name, rule.plain(value))


def whole(least: int, most: int = 1_000_000) -> Rule:
    """A whole number from `least` to `most`."""
    return Rule(
        lambda value: is_number(value, numbers.Integral) and least <= value <= most,
        f"a whole number from {least} on, at most {most:,}",
        int,
    )


def above(bound: float) -> Rule:
    """A number larger than `bound`, of a size that can be squared."""
    return Rule(
        lambda value: is_number(value) and bound < value <= _MOST,
        f"above {bound:g}, at most {_MOST:g}",
        _plain,
    )


def at_least(bound: float) -> Rule:
    """A number, `bound` or larger, of a size that can be squared."""
    return Rule(
        lambda value: is_number(value) and bound <= value <= _MOST,
        f"at least {bound:g}, at most {_MOST:g}",
        _plain,
    )


def within(low: float, high: float, *, ends: str = "[]") -> Rule:
    """A number between two others.

    Args:
        low: The smallest.
        high: The largest.
        ends: Whether the ends belong to it, as mathematicians write it: `"[]"`, `"[)"`, `"(]"`
            or `"()"`.
    """

    def holds(value: Any) -> bool:
        if not is_number(value) or not low <= value <= high:
            return False
        return not (ends[0] == "(" and value == low) and not (ends[1] == ")" and value == high)

    return Rule(holds, f"in {ends[0]}{low:g}, {high:g}{ends[1]}", _plain)


def flag() -> Rule:
    """True or False, of Python or numpy."""
    return Rule(lambda value: type(value).__name__ in ("bool", "bool_"), "True or False", bool)


def each(rule: Rule, count: int | None = None) -> Rule:
    """A sequence, which becomes a tuple, of so many values of which a rule holds.

    Args:
        rule: What each of them must be.
        count: How many; `None`: at least one.
    """

    def holds(values: Any) -> bool:
        if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
            return False
        return len(values) == (count or len(values) or 1) and all(map(rule.holds, values))

    many = f"{count} values" if count else "a list of values"
    return Rule(
        holds, f"{many}, each {rule.possible}", lambda values: tuple(map(rule.plain, values))
    )


def one_of(*values: str) -> Rule:
    """One of a few words."""
    *rest, last = map(repr, values)
    possible = f"{', '.join(rest)} or {last}" if rest else last
    return Rule(lambda value: isinstance(value, str) and value in values, possible)


def instance(kind: type[Any], possible: str) -> Rule:
    """An instance of a class; `possible` says which, in words."""
    return Rule(lambda value: isinstance(value, kind), possible)


def optional(rule: Rule) -> Rule:
    """What the rule says, or `None`."""
    return Rule(
        lambda value: value is None or rule.holds(value),
        f"{rule.possible}, or None",
        lambda value: None if value is None else rule.plain(value),
    )


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


def _plain(value: Any) -> float:
    """A number of numpy or of `fractions` as Python's own."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def is_number(value: object, kind: type[numbers.Real] = numbers.Real) -> bool:
    """Whether it is a finite number that a float can hold; True and False aren't."""
    try:
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
