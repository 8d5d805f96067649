"""Tensors inside the nested values that modules return: list, pick, replace."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from feedback_adapter.errors import ModelError


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        names = [str(key) for key in value]
        if len(set(names)) < len(names):  # such as 1 and "1"
            names = [repr(key) for key in value]
        yield from zip(names, value.values(), strict=True)
    elif isinstance(value, (tuple, list)):
        yield from ((str(index), item) for index, item in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor has a shape and a value at each place: it is neither sparse nor nested."""
    return tensor.layout is torch.strided and not tensor.is_nested


def named_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield `(selector, tensor)` for each tensor of a nested value, depth first.

    The selector of a bare tensor is `""`; otherwise keys, indices and field names
    are joined by dots, as `pick` reads them.
    """
    if isinstance(value, Tensor):
        yield prefix, value
        return
    for name, item in _items(value):
        yield from named_tensors(item, f"{prefix}.{name}" if prefix else name)


def map_tensors(
    value: Any, function: Callable[[str, Any], Any], prefix: str = "", leaf: type = Tensor
) -> Any:
    """A copy of a nested value with `function(selector, tensor)` in place of each tensor.

    Containers keep their type (named tuples, ordered dicts and dataclasses included);
    what holds no tensor is passed on as it is. `leaf` is the type to look for.
    """
    if isinstance(value, leaf):
        return function(prefix, value)
    new = {
        name: map_tensors(item, function, f"{prefix}.{name}" if prefix else name, leaf)
        for name, item in _items(value)
    }
    if not new:
        return value
    if isinstance(value, Mapping):
        result: Any = copy.copy(value)
        for key, item in zip(list(result), new.values(), strict=True):
            result[key] = item
        return result
    if isinstance(value, tuple):
        return tuple.__new__(type(value), new.values())  # no constructor looks at what is in it
    if isinstance(value, list):
        result = copy.copy(value)
        result[:] = new.values()
        return result
    result = copy.copy(value)  # not dataclasses.replace: it would run __post_init__ again
    for name, item in new.items():
        object.__setattr__(result, name, item)
    return result


def replace_tensor(value: Any, selector: str, tensor: Tensor) -> Any:
    """A copy of a nested value with the tensor named by `selector` replaced."""
    if not selector:
        return tensor
    return map_tensors(value, lambda name, old: tensor if name == selector else old)


def pick(value: Any, path: str | None) -> Any:
    """Follow dotted keys, indices and attribute names into a model's return value.

    Raises:
        ModelError: A step of the path leads nowhere.
    """
    for step in path.split(".") if path else ():
        try:
            if isinstance(value, Mapping):
                value = value[step]
            elif isinstance(value, (tuple, list)) and step.lstrip("-").isdigit():
                value = value[int(step)]
            else:
                value = getattr(value, step)
        except (KeyError, IndexError, AttributeError) as error:
            has = list(value) if isinstance(value, Mapping) else type(value).__name__
            raise ModelError(
                f"select={path!r} leads nowhere at {step!r}: the model returned {has}."
            ) from error
    return value
