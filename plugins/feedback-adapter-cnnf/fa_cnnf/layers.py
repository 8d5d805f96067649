"""Layers that run in both directions: forward, and as the generative feedback.

Each has `forward(x, state)` and `feedback(g, state)`; what the two passes tell each other
is in the `State` of the call. Source: 'Neural Networks with Recurrent Generative Feedback'
(NeurIPS 2020), section 2.2 and its published code.
"""

from __future__ import annotations

import abc

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fa_cnnf.smooth import soft_switch, straight_through
from fa_cnnf.state import State

__all__ = [
    "EPSILON",
    "AdaReLU",
    "Affine",
    "Bias",
    "Conv",
    "FeedbackNorm",
    "Flatten",
    "InstanceNorm",
    "Layer",
    "Linear",
    "rms_norm",
]

EPSILON = 1e-8
"""Added to the mean square before the root, as published."""


def rms_norm(x: Tensor, dims: tuple[int, ...] = (2, 3)) -> Tensor:
    """x / sqrt(mean x^2 + 1e-8): no mean is subtracted and nothing is learned.

    Args:
        x: (batch, channels, height, width).
        dims: What the mean runs over; (2, 3) is per sample and channel.
    """
    return x / torch.sqrt((x * x).mean(dims, keepdim=True) + EPSILON)


class Layer(nn.Module, abc.ABC):
    """One layer of a CNN-F.

    Attributes:
        key: Unique within a converted model; set by `convert`, names the layer's memory.
        name: Path of the module of the user's model that this layer came from.
    """

    key: str = ""
    name: str = ""

    @abc.abstractmethod
    def forward(self, x: Tensor, state: State) -> Tensor:
        """Run forward, in cycle `state.cycle`."""

    @abc.abstractmethod
    def feedback(self, g: Tensor, state: State) -> Tensor:
        """Run backwards: from a value at the layer's output to one at its input."""


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


class InstanceNorm(Layer):
    """`rms_norm` in the forward pass; feedback passes (`FeedbackNorm` is its counterpart)."""

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, channels, h, w), the same shape."""
        del state
        return rms_norm(x)

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """The same value."""
        del state
        return g


class FeedbackNorm(Layer):
    """`rms_norm` of the feedback value; the forward pass is left as it is.

    Sits above each activation (and its pooling), so that feedback is normalised right after
    each transposed convolution. Values that aren't (batch, channels, h, w) pass.

    Args:
        per: `"channel"` as published, or `"sample"`: over channels too. Where feedback is
            constant over space (below a global average pool), the first keeps nothing of a
            channel but its sign, a flaw of the published wide ResNet; the second keeps the
            proportions.
    """

    def __init__(self, per: str = "channel") -> None:
        super().__init__()
        self.per = per

    def forward(self, x: Tensor, state: State) -> Tensor:
        """The same value."""
        del state
        return x

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """The same shape."""
        del state
        if g.ndim != 4:
            return g
        return rms_norm(g, (2, 3) if self.per == "channel" else (1, 2, 3))


class AdaReLU(Layer):
    """The switch that agrees with feedback (section 2.2).

    Cycle 0 is the plain activation. Later, with g the value that feedback brought here:
    f' = f + step_size (g - f), which passes where f' and g have the same sign.

    Args:
        slope: What passes where the switch is off: 0 for ReLU, else as in LeakyReLU.
        limit: Largest output; 6 for ReLU6. Where it is reached, feedback is off.
        normalise: Whether `convert` puts a `FeedbackNorm` above it.
    """

    def __init__(
        self, slope: float = 0.0, limit: float | None = None, normalise: bool = True
    ) -> None:
        super().__init__()
        self.slope, self.limit, self.normalise = slope, limit, normalise

    def forward(self, x: Tensor, state: State) -> Tensor:
        """Any shape, the same shape."""
        if state.cycle:
            g = state.get(self.key, "g")
            x = x + state.step_size * (g - x)
            sign = x * g
        else:
            sign = x
        switch = sign > 0
        value = self._pass(x, switch, sign, state)
        if self.limit is not None:
            switch = torch.logical_and(switch, x.abs() < self.limit)
            value = value.clamp(-self.limit, self.limit)
        state.keep(self.key, switch=switch)
        if state.smooth:
            state.keep(self.key, sign=sign)
        return value

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """g where the last forward pass was on; g itself is kept for the next one."""
        switch = state.get(self.key, "switch")
        state.keep(self.key, g=g)
        return self._pass(g, switch, state.get(self.key, "sign") if state.smooth else g, state)

    def _pass(self, x: Tensor, switch: Tensor, sign: Tensor, state: State) -> Tensor:
        """x where the switch is on, slope x elsewhere."""
        value = torch.where(switch, x, x * self.slope if self.slope else torch.zeros_like(x))
        if state.smooth:
            share = soft_switch(sign, state.smooth)
            value = straight_through(value, x * (self.slope + (1 - self.slope) * share))
        return value


class Flatten(Layer):
    """(batch, ...) to (batch, n), and back."""

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, ...) to (batch, n)."""
        state.keep(self.key, shape=tuple(x.shape[1:]))
        return x.flatten(1)

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """(batch, n) to the shape of the last forward pass."""
        return g.reshape(g.shape[0], *state.get(self.key, "shape"))
