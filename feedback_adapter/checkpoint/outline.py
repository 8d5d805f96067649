"""What a model is made of, without running it and without memory for its weights."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from feedback_adapter.errors import CheckpointError

_FREE = 2**24
"""Elements that a model may have beyond what its weights make likely: tables of positions."""
_TRAINING = frozenset(["training", "p", "drop_prob", "grad_checkpointing", "inplace"])
"""Attributes that say nothing about evaluation mode."""


class _Counted(TorchFunctionMode):
    """Stops the building of a model that takes more than its weights make likely."""

    def __init__(self, elements: int, tensors: int) -> None:
        super().__init__()
        self.elements, self.tensors = 4 * elements + _FREE, 8 * tensors + 2_000

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not any(isinstance(arg, Tensor) for arg in args):
            self.elements -= made.numel()
            self.tensors -= 1
            if self.elements < 0 or self.tensors < 0:
                raise CheckpointError(
                    "It would take far more memory or parts than the weights that are there: "
                    "the config asks for another model than theirs."
                )
        return made


def outline_of(build: Callable[[], nn.Module], elements: int, tensors: int) -> nn.Module:
    """Build a model on the meta device, where it takes no memory.

    Raises:
        CheckpointError: It would be far larger than weights of so many elements and tensors.
    """
    try:
        counted = _Counted(elements, tensors)
        with torch.random.fork_rng(devices=[]), torch.device("meta"), counted:
            return build()
    except CheckpointError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise  # some builders compute with values, which the meta device hasn't
    with torch.random.fork_rng(devices=[]), _Counted(elements, tensors):
        return build()


def facts_of(model: nn.Module) -> dict[str, Any]:
    """What a model is made of: each module's class and plain attributes, each tensor's shape.

    These are facts by a name that starts with the module's, of a model on the meta device, too.
    """
    facts: dict[str, Any] = {}
    for name, module in model.named_modules():
        facts[f"{name}:"] = type(module).__qualname__
        for key, value in vars(module).items():
            if not key.startswith("_") and key not in _TRAINING and _is_plain(value):
                facts[f"{name}:{key}"] = _said(value)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        facts[f"{name}:shape"] = tuple(tensor.shape)
    return facts


def apart(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """The names of facts that differ, in order of the alphabet."""
    nothing = object()
    return sorted(
        name for name in one.keys() | two.keys()
        if one.get(name, nothing) != two.get(name, nothing)
    )  # fmt: skip


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str | type | types.FunctionType)


def _said(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_said(part) for part in value)
    return getattr(value, "__qualname__", value)
