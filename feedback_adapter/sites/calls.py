"""Seeing and answering the calls that a model makes to its modules.

While a handler is installed, every `module(...)` of the installing thread goes
through it. Nothing is stored on any module: `nn.Module.__call__` itself is
exchanged, as `torch.fx` does when it traces, and put back when the last handler
leaves. Other threads pass straight through.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any

from torch import nn

__all__ = ["Handler", "intercept", "plain_call"]

Handler = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]

_local = threading.local()
_lock = threading.Lock()
_installed = 0
_original: Callable[..., Any] = nn.Module.__call__


def _dispatch(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    handler = getattr(_local, "handler", None)
    if handler is None:
        return _original(module, *args, **kwargs)
    return handler(module, args, kwargs)


@contextlib.contextmanager
def intercept(handler: Handler) -> Generator[None]:
    """Let `handler(module, args, kwargs)` answer each module call of this thread."""
    global _installed, _original
    with _lock:
        if _installed == 0:
            _original = nn.Module.__call__
            nn.Module.__call__ = _dispatch
        _installed += 1
    previous = getattr(_local, "handler", None)
    _local.handler = handler
    try:
        yield
    finally:
        _local.handler = previous
        with _lock:
            _installed -= 1
            if _installed == 0:
                nn.Module.__call__ = _original


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
