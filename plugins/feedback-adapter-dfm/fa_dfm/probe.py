"""What one forward pass tells about a network: its first convolution, features and outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Trace", "trace"]


@dataclasses.dataclass(frozen=True)
class Trace:
    """The order in which a network works.

    Args:
        value: What it returned.
        convolutions: Names of its convolutions, in the order of their first call.
        maps: Names of modules that returned one feature map larger than a pixel, in the order
            in which they were ready, up to the last layer with weights.
    """

    value: Any
    convolutions: tuple[str, ...]
    maps: tuple[str, ...]


@torch.no_grad()
def trace(model: nn.Module, images: Tensor) -> Trace:
    """Watch one forward pass of a model of our own, in evaluation mode.

    Args:
        model: Is left in evaluation mode, and otherwise as it was.
        images: (batch, channels, height, width).
    """
    convolutions: list[str] = []
    maps: list[str] = []
    last: list[int] = [0]

    def begin(name: str, module: nn.Module) -> Any:
        def hook(_module: nn.Module, _args: Any) -> None:
            if isinstance(module, nn.Conv2d) and name not in convolutions:
                convolutions.append(name)
            last[0] = len(maps)

        return hook

    def end(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
                maps.append(name)

        return hook

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            handles.append(module.register_forward_pre_hook(begin(name, module)))
        handles.append(module.register_forward_hook(end(name)))
    try:
        value = model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(value, tuple(convolutions), tuple(maps[: last[0]]))
