"""Layers that are linear in what they get: their feedback is the transposed map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fa_cnnf.layers.base import Layer
from fa_cnnf.layers.state import State

__all__ = ["Affine", "Bias", "Conv", "Flatten", "Linear"]


class Conv(Layer):
    """A 2-d convolution; feedback is the transposed one with the same weight, no bias.

    Args:
        weight: (out, in / groups, kh, kw).
        bias: (out), or `None`.
        stride, padding, dilation: Of the rows and columns.
        groups: As in `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        weight: nn.Parameter,
        bias: nn.Parameter | None = None,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, in, h, w) to (batch, out, h', w')."""
        state.keep(self.key, size=(x.shape[2], x.shape[3]))
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """(batch, out, h', w') to (batch, in, h, w); the last forward pass says h and w."""
        size = state.get(self.key, "size")
        extra = [
            size[i]
            - (g.shape[2 + i] - 1) * self.stride[i]
            + 2 * self.padding[i]
            - self.dilation[i] * (self.weight.shape[2 + i] - 1)
            - 1
            for i in (0, 1)
        ]
        return F.conv_transpose2d(
            g, self.weight, None, self.stride, self.padding, extra, self.groups, self.dilation
        )


class Linear(Layer):
    """x W^T + b; feedback is g W, without the bias.

    Args:
        weight: (out, in).
        bias: (out), or `None`.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, in) to (batch, out)."""
        del state
        return F.linear(x, self.weight, self.bias)

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """(batch, out) to (batch, in)."""
        del state
        return g @ self.weight


class Bias(Layer):
    """x + b; feedback passes.

    Args:
        bias: Broadcastable to the input, such as (1, channels, 1, 1).
    """

    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor, state: State) -> Tensor:
        """The same shape."""
        del state
        return x + self.bias

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """The same value."""
        del state
        return g


class Affine(Layer):
    """x * scale + shift per channel: a BatchNorm in evaluation that follows no convolution.

    Args:
        scale: (1, channels, 1, 1).
        shift: (1, channels, 1, 1).
    """

    def __init__(self, scale: nn.Parameter, shift: nn.Parameter) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor, state: State) -> Tensor:
        """The same shape."""
        del state
        return x * self.scale + self.shift

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """The transposed map: g * scale."""
        del state
        return g * self.scale


class Flatten(Layer):
    """(batch, ...) to (batch, n), and back."""

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, ...) to (batch, n)."""
        state.keep(self.key, shape=tuple(x.shape[1:]))
        return x.flatten(1)

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """(batch, n) to the shape of the last forward pass."""
        return g.reshape(g.shape[0], *state.get(self.key, "shape"))
