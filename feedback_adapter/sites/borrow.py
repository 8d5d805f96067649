"""Holding a model still while it is refined, and giving it back as it was.

Evaluation mode, frozen parameters and no gradient checkpointing are set for the time
of a refinement only. They are counted per module and parameter, so that two threads
can hold the same model, or models that share layers: the last one restores.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import Any

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from feedback_adapter.errors import ModelError

__all__ = ["borrowed"]

_lock = threading.Lock()
_held: dict[tuple[int, str], tuple[int, Any, Any]] = {}  # (id, attribute): (holders, owner, value)


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Generator[None]:
    """Hold the model in evaluation mode with frozen parameters, outside inference mode.

    Raises:
        ModelError: The weights were made under `torch.inference_mode`, or are on the
            meta device.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ModelError(
                f"{name!r} was made under torch.inference_mode, and autograd refuses such tensors. "
                "Build or load the model outside of it, or pass copy.deepcopy(model)."
            )
        if tensor.is_meta:
            raise ModelError(
                f"{name!r} is on the meta device and has no values. "
                "Load the weights first: model.to_empty(device=...), then load_state_dict."
            )
    changes: list[tuple[Any, str, Any]] = []
    for module in model.modules():
        changes += [(module, "training", False)]
        if getattr(module, "grad_checkpointing", False) is True:
            changes += [(module, "grad_checkpointing", False)]
    changes += [(parameter, "requires_grad", False) for parameter in model.parameters()]
    _take(changes)
    try:
        with torch.inference_mode(False), _eager(model):
            yield
    finally:
        _give_back(changes)


def _take(changes: list[tuple[Any, str, Any]]) -> None:
    with _lock:
        for owner, name, value in changes:
            holders, _, before = _held.get((id(owner), name), (0, owner, getattr(owner, name)))
            _held[id(owner), name] = (holders + 1, owner, before)
            if getattr(owner, name) is not value:
                setattr(owner, name, value)


def _give_back(changes: list[tuple[Any, str, Any]]) -> None:
    with _lock:
        for owner, name, _ in changes:
            holders, _, before = _held[id(owner), name]
            if holders > 1:
                _held[id(owner), name] = (holders - 1, owner, before)
                continue
            del _held[id(owner), name]
            if getattr(owner, name) is not before:
                setattr(owner, name, before)


@contextlib.contextmanager
def _eager(model: nn.Module) -> Generator[None]:
    """Run compiled modules eagerly: their graphs don't make the calls that we watch."""
    compiled = any(
        isinstance(module, OptimizedModule) or module._compiled_call_impl is not None  # pyright: ignore[reportPrivateUsage]
        for module in model.modules()
    )
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
