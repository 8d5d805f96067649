"""What a model was, so that what somebody else's code leaves behind is found and put right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.sites.frozen import same_bits

_OWN = frozenset(vars(nn.Module())) - {"_buffers"}
"""What every module has; `frozen` sees to buffers, which a forward pass may write to."""


class Kept:
    """The parameters, gradients, hooks, parts and methods of a model.

    A module's other attributes aren't looked at: its forward pass may write to them.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = model.named_parameters()
        self._tensors = [(n, p, _copy(p), p.grad, _copy(p.grad)) for n, p in tensors]
        self._modules = [
            (path or "model", module, {name: (v, _copy(v)) for name, v in _watched(module).items()})
            for path, module in model.named_modules()
        ]
        kinds = {type(module) for module in model.modules()}
        own = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
        self._forwards = [(kind, vars(kind)["forward"]) for kind in own if "forward" in vars(kind)]

    def put_back(self) -> list[str]:
        """Put right what differs.

        Returns:
            The names of what differed, such as `"layer4._forward_hooks"`.
        """
        found: list[str] = []
        for kind, forward in self._forwards:
            if vars(kind).get("forward") is not forward:
                kind.forward = forward
                found.append(f"{kind.__name__}.forward")
        for path, module, before in self._modules:
            held = vars(module)
            for name in [name for name in _watched(module) if name not in before]:
                del held[name]
                found.append(f"{path}.{name}")
            for name, (value, copy) in before.items():
                if held.get(name) is not value or not _same(value, copy):
                    held[name] = _filled(value, copy)
                    found.append(f"{path}.{name}")
        for name, parameter, value, grad, slope in self._tensors:
            if not _same(parameter, value):
                _filled(parameter, value)
                found.append(name)
            if parameter.grad is not grad or not _same(grad, slope):
                parameter.grad = _filled(grad, slope)
                found.append(f"{name}.grad")
        return found


def _watched(module: nn.Module) -> dict[str, Any]:
    """What a module holds of what every module has, and what hides a method of its class."""
    kind = type(module)
    return {
        name: value
        for name, value in vars(module).items()
        if name in _OWN or callable(getattr(kind, name, None))
    }


def _copy(value: Any) -> Any:
    """A copy of what a tensor, a dictionary or a set holds; anything else is what it is."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, (dict, set)) else value


def _same(value: Any, copy: Any) -> bool:
    """Whether something still holds what it held when it was copied."""
    if isinstance(value, Tensor):
        return same_bits(value.detach(), copy)
    if isinstance(value, dict):
        return len(value) == len(copy) and all(
            value.get(k, copy) is item for k, item in copy.items()
        )
    return value == copy if isinstance(value, set) else value is copy


@torch.no_grad()
def _filled(value: Any, copy: Any) -> Any:
    """Something, holding again what it held when it was copied."""
    if isinstance(value, Tensor):
        same_form = value.shape == copy.shape and value.dtype == copy.dtype
        if same_form and value.device == copy.device:
            value.copy_(copy)
        else:
            value.data = copy
    elif isinstance(value, (dict, set)):
        value.clear()
        value.update(copy)
    return value
