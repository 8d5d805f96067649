"""The state of a training run in one safetensors file: nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclasses.dataclass
class Progress:
    """How far a run is, and the best that it has found."""

    epoch: int = 0
    finished: bool = False
    best_map: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, Tensor] = dataclasses.field(default_factory=dict, repr=False)

    def add(self, entry: dict[str, Any], score: float, model: nn.Module, seconds: float) -> None:
        """Note a pass, and keep the model's weights if they are the best so far."""
        self.epoch = entry["epoch"]
        self.seconds = seconds
        self.history.append(entry)
        if score > self.best_map:
            self.best_map, self.best_epoch = score, self.epoch
            self.best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}


def save_state(
    path: Path, progress: Progress, model: nn.Module, average: nn.Module, optimizer: Any
) -> None:
    """Write the state; a run that is cut off while writing keeps the one before."""
    tensors = {
        **_prefixed("model", model.state_dict()),
        **_prefixed("average", average.state_dict()),
        **_prefixed("best", progress.best),
    }
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= _prefixed(f"optimizer.{index}", values)
    record = {k: v for k, v in vars(progress).items() if k != "best"}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    save_file(tensors, new, metadata={"progress": json.dumps(record)})
    new.replace(path)


def load_state(
    path: Path | None, model: nn.Module, average: nn.Module, device: torch.device
) -> tuple[Progress, Callable[[Any], dict[str, Any]] | None]:
    """Read the state into the models.

    Returns:
        The progress, and a function from a fresh optimizer to the state dict to load
        into it; a new run's progress and `None` where there is no state.
    """
    if path is None or not path.is_file():
        return Progress(), None
    with safe_open(path, framework="pt", device=str(device)) as file:
        progress = Progress(**json.loads(file.metadata()["progress"]))
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model.load_state_dict(_without("model", tensors))
    average.load_state_dict(_without("average", tensors))
    progress.best = {k: v.cpu() for k, v in _without("best", tensors).items()}

    def optimizer_state(optimizer: Any) -> dict[str, Any]:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _without("optimizer", tensors).items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value.cpu() if name == "step" else value
        return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}

    return progress, optimizer_state


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{k}": v.detach().cpu().contiguous() for k, v in tensors.items()}


def _without(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
