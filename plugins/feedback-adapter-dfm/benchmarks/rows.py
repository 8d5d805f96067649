"""Rows of the tables: what each seed measured, brought to a mean and a standard deviation."""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision

__all__ = ["Measured", "machine", "summary", "versions", "ways", "write"]


@dataclasses.dataclass(frozen=True)
class Measured:
    """One number that one seed gave."""

    method: str
    condition: str
    metric: str
    value: float
    seed: int
    macs: int
    parameters: int


def ways(name: str, looks: int) -> dict[str, dict[str, Any]]:
    """How a network of so many looks is run to be scored: arguments of `DFM.unroll` by name."""
    if looks == 1:
        return {name: {}}
    cut = {f"{name}, cut": {"cut": True}, f"{name}, shuffled": {"shuffle": True}}
    return {name: {}, **cut, **{f"{name}, {t} looks": {"steps": t} for t in (1, 2 * looks)}}


def summary(measured: Iterable[Measured]) -> list[dict[str, Any]]:
    """One row per method, condition and metric, with mean and standard deviation over seeds."""
    groups: dict[tuple[str, str, str], dict[int, Measured]] = {}
    for one in measured:
        groups.setdefault((one.condition, one.metric, one.method), {})[one.seed] = one
    rows = []
    for (condition, metric, method), by_seed in groups.items():
        ones = list(by_seed.values())
        values = [one.value for one in ones]
        rows.append(
            {
                "method": method,
                "condition": condition,
                "metric": metric,
                "value": round(statistics.mean(values), 2),
                "sd": round(statistics.stdev(values), 2) if len(values) > 1 else None,
                "seeds": len(values),
                "macs": ones[0].macs,
                "parameters": ones[0].parameters,
            }
        )
    return rows


def write(file: Path, measured: Iterable[Measured], notes: dict[str, Any] | None = None) -> None:
    """Write a table, replacing an older one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "versions": versions(),
        "machine": machine(),
        **(notes or {}),
        "rows": summary(measured),
    }
    file.write_text(json.dumps(table, indent=1) + "\n")


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
    }


def machine() -> str:
    """The processor that trained."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU"
