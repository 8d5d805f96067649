"""Holding a model still while it is refined, and giving it back as it was.

For the time of a refinement only: evaluation mode, frozen parameters, and PyTorch's own
shortcuts off (see `feedback_adapter.sites.torch_patches`). Whatever is set is counted, so
that several threads can hold the same model, or models that share layers: the last one
restores.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import Any

import torch
from torch import nn

from feedback_adapter.errors import ModelError
from feedback_adapter.sites.intercept import installed
from feedback_adapter.sites.torch_patches import Change, shortcuts_off, watching

__all__ = ["frozen"]

_lock = threading.Lock()
_held: dict[tuple[int, str], tuple[int, Any, Any]] = {}  # (id, attribute): (holders, owner, value)


@contextlib.contextmanager
def frozen(model: nn.Module) -> Generator[None]:
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
    changes: list[Change] = [(module, "training", False) for module in model.modules()]
    changes += [(parameter, "requires_grad", False) for parameter in model.parameters()]
    changes += shortcuts_off(model)
    _set(changes)
    try:
        with watching(), torch.inference_mode(False), installed():
            yield
    finally:
        _restore(changes)


def _set(changes: list[Change]) -> None:
    with _lock:
        for owner, name, value in changes:
            holders, _, before = _held.get((id(owner), name), (0, owner, getattr(owner, name)))
            _held[id(owner), name] = (holders + 1, owner, before)
            if getattr(owner, name) is not value:
                setattr(owner, name, value)


def _restore(changes: list[Change]) -> None:
    with _lock:
        for owner, name, _ in changes:
            holders, _, before = _held[id(owner), name]
            if holders > 1:
                _held[id(owner), name] = (holders - 1, owner, before)
                continue
            del _held[id(owner), name]
            if getattr(owner, name) is not before:
                setattr(owner, name, before)
