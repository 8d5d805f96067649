"""Whether a model is bit for bit what it was."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from torch import Tensor, nn

from feedback_adapter.sites import same_bits
from feedback_adapter.testing.promises import ConformanceError

__all__ = ["differences", "snapshot", "untouched"]

_BY_IDENTITY = ("_parameters", "_buffers", "_modules")


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that a refinement must leave as it was, by name.

    These are the values, the identity, the version, `requires_grad` and the gradient of every
    parameter and buffer, every attribute of every module (training flags, hooks, `forward` and
    what lists, dictionaries and tensors in them hold), and `nn.Module.__call__`.
    """
    state: dict[str, Any] = {"nn.Module.__call__": nn.Module.__call__}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        state[name] = tensor.detach().clone()
        state[f"{name} (identity)"] = id(tensor)
        state[f"{name}.requires_grad"] = tensor.requires_grad
        state[f"{name}.grad"] = None if tensor.grad is None else tensor.grad.detach().clone()
        state[f"{name}._version"] = None if tensor.is_inference() else tensor._version
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            by_identity = key in _BY_IDENTITY
            held = {k: id(item) for k, item in value.items()} if by_identity else _copy(value)
            state[f"{path or 'model'}.{key}"] = held
    return state


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two snapshots, a phrase for each; empty if nothing does."""
    found: list[str] = []
    for what in [*before, *(name for name in after if name not in before)]:
        if what not in before or what not in after:
            found.append(f"{what} {'appeared' if what in after else 'is gone'}")
        elif not _same(before[what], after[what]):
            found.append(f"{what} changed: {before[what]!r} to {after[what]!r}")
    return found


@contextlib.contextmanager
def untouched(model: nn.Module) -> Generator[None]:
    """Check that what happens in the `with` leaves a model bit for bit as it is.

    The check is made where an exception leaves the `with`, too. `snapshot` says what is compared.

    Raises:
        ConformanceError: Something differs; it says what.
    """
    before = snapshot(model)
    try:
        yield
    finally:
        found = differences(before, snapshot(model))
        if found:
            raise ConformanceError(found[0])


def _copy(value: Any) -> Any:
    """A value to compare with later, that what happens in between can't change."""
    if isinstance(value, Tensor):
        return id(value), value.detach().clone()
    if isinstance(value, dict):  # hooks, among others
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else id(value)


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return same_bits(before, after)
    if isinstance(before, dict) and isinstance(after, dict):
        return list(before) == list(after) and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(_same, before, after))
    return before is after or (type(before) is type(after) and bool(before == after))
