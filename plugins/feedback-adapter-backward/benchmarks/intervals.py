"""Means with 95% bootstrap intervals, and what every table says of its machine."""

import platform
from collections.abc import Sequence

import numpy as np
import torch

DRAWS = 2000


def with_interval(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Mean, ends of its 95% bootstrap interval, and n; a part of a table's row."""
    array = np.array(values, dtype=float)
    draws = np.random.default_rng(0).integers(len(array), size=(DRAWS, len(array)))
    low, high = np.quantile(array[draws].mean(1), [0.025, 0.975])
    numbers = {"value": array.mean(), "low": low, "high": high}
    return {name: round(float(n), digits) for name, n in numbers.items()} | {"n": len(array)}


def versions() -> dict[str, dict[str, str] | str]:
    """What a table was made with; the beginning of its JSON."""
    made_with = {"torch": torch.__version__, "python": platform.python_version()}
    return {"versions": made_with, "machine": platform.machine()}
