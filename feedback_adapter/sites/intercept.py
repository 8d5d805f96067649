"""Seeing and answering the calls that a model makes to its modules.

Inside `intercept`, every `module(...)` of the thread goes through its handler. Nothing is
stored on any module: `nn.Module.__call__` itself is exchanged, as `torch.fx` does when it
traces, and put back when nobody needs it. Other threads pass straight through. Since the
exchange makes Python forget what it has looked up on every subclass (most of a millisecond),
`frozen` keeps it `installed` for the time of a refinement.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import nn

__all__ = ["Handler", "installed", "intercept", "plain_call", "surely"]

Handler = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]

_local = threading.local()
_lock = threading.Lock()
_holders: set[object] = set()
_original: Callable[..., Any] = nn.Module.__call__  # taken once, so that it is never ours


def _dispatch(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    handler = getattr(_local, "handler", None)
    if handler is None or torch.compiler.is_compiling():  # as torch.cond does with its branches
        return _original(module, *args, **kwargs)
    return handler(module, args, kwargs)


@contextlib.contextmanager
def installed() -> Generator[None]:
    """Keep `nn.Module.__call__` exchanged, so that `intercept` costs nothing."""
    token = object()
    try:
        with _lock:
            _holders.add(token)
            if nn.Module.__call__ is _original:
                nn.Module.__call__ = _dispatch
        yield
    finally:
        surely(lambda: _release(token))


def _release(token: object) -> None:
    with _lock:
        _holders.discard(token)
        if not _holders:
            nn.Module.__call__ = _original


def surely(undo: Callable[[], None]) -> None:
    """Undo something, and only then let an interrupt have its way.

    Args:
        undo: May be called again where it was interrupted.
    """
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            undo()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _give_back_in_child() -> None:
    """A forked process has none of the threads that were watched."""
    global _lock
    _lock = threading.Lock()
    _holders.clear()
    _local.handler = None
    nn.Module.__call__ = _original


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_back_in_child)


@contextlib.contextmanager
def intercept(handler: Handler) -> Generator[None]:
    """Let `handler(module, args, kwargs)` answer each module call of this thread."""
    with installed():
        previous = getattr(_local, "handler", None)
        _local.handler = handler
        try:
            yield
        finally:
            _local.handler = previous


def plain_call(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], handler: Handler | None
) -> Any:
    """Call a module as if nothing were installed; calls inside it go to `handler`."""
    previous = _local.handler
    _local.handler = handler
    try:
        return _original(module, *args, **kwargs)
    finally:
        _local.handler = previous
