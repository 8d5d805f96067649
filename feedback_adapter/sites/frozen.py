"""Holding a model still while it is refined, and giving it back as it was.

For the time of a refinement only: evaluation mode, frozen parameters, and PyTorch's own
shortcuts off (see `feedback_adapter.sites.torch_patches`). Whatever is set is counted, so
that several threads can hold the same model, or models that share layers: the last one
restores.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from feedback_adapter.errors import ModelError
from feedback_adapter.sites.intercept import installed, surely
from feedback_adapter.sites.torch_patches import Change, shortcuts_off, watching

__all__ = ["frozen"]

_lock = threading.Lock()


@contextlib.contextmanager
def frozen(model: nn.Module, *, watch: bool = True) -> Generator[None]:
    """Hold the model in evaluation mode with frozen parameters, outside inference mode.

    Args:
        model: The user's model.
        watch: Whether its calls will be watched: PyTorch's shortcuts would hide some of them.

    Raises:
        ModelError: The weights were made under `torch.inference_mode`, or are on the
            meta device.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ModelError(
                f"{name!r} has no shape yet: the model has lazy modules and hasn't run. "
                "Run it once on images, model(images), then refine."
            )
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
    changes += shortcuts_off(model) if watch else []
    holder = object()
    try:
        _set(holder, changes, model)
        with torch.inference_mode(False), _watched() if watch else contextlib.nullcontext():
            yield
    finally:
        surely(lambda: _restore(holder))


@contextlib.contextmanager
def _watched() -> Generator[None]:
    with watching(), installed():
        yield


class _Held:
    """What one attribute was before, and who needs it changed."""

    def __init__(self, owner: Any, name: str, before: Any) -> None:
        self.owner, self.name, self.before = owner, name, before
        self.holders: set[object] = set()

    def put_back(self) -> None:
        if getattr(self.owner, self.name) is not self.before:
            _assign(self.owner, self.name, self.before)


def _assign(owner: Any, name: str, value: Any) -> None:
    """Set an attribute; evaluation mode by the module's own `train`, where it has one."""
    if name == "training" and type(owner).train is not nn.Module.train:
        owner.train(value)
    else:
        setattr(owner, name, value)


def _set(holder: object, changes: list[Change], model: nn.Module) -> None:
    with _lock:
        if id(model) not in _states:
            _states[id(model)] = _State(model)
        _states[id(model)].holders.add(holder)
        for owner, name, _ in changes:  # all of them before any is changed
            key = id(owner), name
            if key not in _held:
                _held[key] = _Held(owner, name, getattr(owner, name))
            _held[key].holders.add(holder)
        for owner, name, value in changes:
            if getattr(owner, name) is not value:
                _assign(owner, name, value)


def _restore(holder: object) -> None:
    """Put back what nobody else holds; it can be called again where it was interrupted."""
    with _lock:
        for held in cast("tuple[dict[Any, Any], ...]", (_held, _states)):
            for key, what in list(held.items()):
                if what.holders <= {holder}:
                    what.put_back()
                    del held[key]
                else:
                    what.holders.discard(holder)


class _State:
    """The buffers of a model, some of which its forward pass may write to."""

    def __init__(self, model: nn.Module) -> None:
        self.holders: set[object] = set()
        self.buffers = [
            (module._buffers, name, buffer, buffer._version, buffer.detach().clone())  # pyright: ignore[reportPrivateUsage]
            for module in model.modules()
            for name, buffer in module._buffers.items()  # pyright: ignore[reportPrivateUsage]
            if buffer is not None
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        for buffers, name, buffer, version, value in self.buffers:
            if buffers.get(name) is not buffer:
                buffers[name] = buffer
            if buffer._version != version:
                if buffer.shape != value.shape:
                    buffer.resize_(value.shape)
                buffer.copy_(value)


def _give_back_in_child() -> None:
    """A forked process has none of the threads that held a model."""
    global _lock
    _lock = threading.Lock()
    for held in (_held, _states):
        for what in list(held.values()):
            what.put_back()
        held.clear()


_held: dict[tuple[int, str], _Held] = {}
_states: dict[int, _State] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_back_in_child)
