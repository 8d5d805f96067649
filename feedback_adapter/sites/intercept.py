"""Seeing and answering the calls that a model makes to its modules.

`nn.Module.__call__` asks each module for `_compiled_call_impl` before it calls it, which is
PyTorch's own place for another way of calling one module. A module that is held (see
`feedback_adapter.sites.frozen`) has an answer there, which asks the handler of the thread:
`intercept` sets it, and threads without one pass straight through. Nothing outside the model
is exchanged, and PyTorch leaves that attribute out of pickles and copies.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Handler = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]

_local = threading.local()


def answer(module: nn.Module) -> None:
    """Let a module ask the thread's handler when it is called, until the attribute is put back."""
    before: Any = module._compiled_call_impl  # pyright: ignore[reportPrivateUsage]
    if not isinstance(before, _Answer):
        vars(module)["_compiled_call_impl"] = _Answer(_ask, module, before)


class _Answer(functools.partial[Any]):
    """Tells the answer from what the user has put there."""


def _ask(module: nn.Module, before: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Any:
    handler = getattr(_local, "handler", None)
    if handler is None or torch.compiler.is_compiling():  # as torch.cond does with branches
        return (before or module._call_impl)(*args, **kwargs)  # pyright: ignore[reportPrivateUsage]
    return handler(module, args, kwargs)


def surely(undo: Callable[[], None]) -> None:
    """Undo something, again where that is interrupted; only then an interrupt has its way."""
    interrupted = False
    while True:
        try:
            undo()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt


class intercept:  # noqa: N801, it is used as a function
    """Let `handler(module, args, kwargs)` answer each call of a held module in this thread."""

    def __init__(self, handler: Handler | None) -> None:
        self.handler, self.previous = handler, getattr(_local, "handler", None)

    def __enter__(self) -> None:
        _local.handler = self.handler

    def __exit__(self, *_: object) -> None:
        _local.handler = self.previous


def plain_call(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], handler: Handler | None
) -> Any:
    """Call a module as if it weren't held; calls inside it go to `handler`."""
    previous = _local.handler
    _local.handler = handler
    try:
        return module._call_impl(*args, **kwargs)  # pyright: ignore[reportPrivateUsage]
    finally:
        _local.handler = previous
