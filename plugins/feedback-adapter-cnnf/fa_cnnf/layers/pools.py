"""Pooling in both directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_cnnf.layers.base import Layer
from fa_cnnf.layers.smooth import soft_switch, straight_through
from fa_cnnf.layers.state import State

__all__ = ["AdaPool", "AdaptiveAveragePool", "AveragePool"]


class AdaPool(Layer):
    """Max pooling that follows the sign of feedback (section 2.2).

    Cycle 0 takes the maximum. Later, with g the value that feedback brought here: the
    maximum where g > 0, the minimum where g < 0, 0 where g = 0. Feedback goes back to the
    place that the last forward pass took its value from: after cycle 0 always the argmax,
    later the argmin where the feedback before it was negative. So the first feedback pass
    is the pool's vector-Jacobian product. (Sending the negative part of any feedback to
    the argmin gives other numbers than the published code.)

    Args:
        kernel, stride, padding, dilation: Of the rows and columns, as in `MaxPool2d`.
        ceil_mode: As in `MaxPool2d`.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, channels, h, w) to (batch, channels, h', w')."""
        value, place = self._pool(x)
        if state.cycle:
            g = state.get(self.key, "g")
            bottom, low = self._pool(-x)
            top = value
            value = torch.where(g > 0, top, torch.where(g < 0, -bottom, torch.zeros_like(top)))
            if state.smooth:
                share = soft_switch(g, state.smooth)
                value = straight_through(value, share * top - (1 - share) * bottom)
            place = torch.where(g < 0, low, place)
        state.keep(self.key, size=(x.shape[2], x.shape[3]), place=place)
        return value

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """(batch, channels, h', w') to (batch, channels, h, w)."""
        size, place = state.get(self.key, "size"), state.get(self.key, "place")
        state.keep(self.key, g=g)
        return self._unpool(g, place, size)

    def _pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.max_pool2d(
            x,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            return_indices=True,
        )

    def _unpool(self, g: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        rows, columns = self.kernel
        tiles = (
            self.stride == self.kernel
            and self.padding == (0, 0)
            and self.dilation == (1, 1)
            and (g.shape[2] * rows, g.shape[3] * columns) == size
        )
        if tiles:  # no window overlaps: elementwise, deterministic and quick on a GPU
            place = torch.arange(height * width, device=g.device)
            place = place.view(1, 1, g.shape[2], rows, g.shape[3], columns)
            here = index[:, :, :, None, :, None] == place
            wide = g[:, :, :, None, :, None]
            return torch.where(here, wide, torch.zeros_like(wide)).reshape(*g.shape[:2], *size)
        flat = g.new_zeros(g.shape[0], g.shape[1], height * width)
        return flat.scatter_add(2, index.flatten(2), g.flatten(2)).view(*g.shape[:2], *size)


class AveragePool(Layer):
    """Average pooling; feedback is nearest-neighbour upsampling, as published.

    Args:
        kernel, stride, padding: Of the rows and columns.
        ceil_mode: As in `AvgPool2d`.
        count_include_pad: As in `AvgPool2d`.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int] = (0, 0),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, channels, h, w) to (batch, channels, h', w')."""
        state.keep(self.key, size=(x.shape[2], x.shape[3]))
        return F.avg_pool2d(
            x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """(batch, channels, h', w') to (batch, channels, h, w)."""
        return _upsample(g, state.get(self.key, "size"))


class AdaptiveAveragePool(Layer):
    """Adaptive average pooling; feedback is nearest-neighbour upsampling.

    Args:
        size: (h', w') of the output; `None` in it keeps the input's.
    """

    def __init__(self, size: tuple[int | None, int | None]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(batch, channels, h, w) to (batch, channels, h', w')."""
        state.keep(self.key, size=(x.shape[2], x.shape[3]))
        return F.adaptive_avg_pool2d(x, self.size)

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """(batch, channels, h', w') to (batch, channels, h, w)."""
        return _upsample(g, state.get(self.key, "size"))


def _upsample(g: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(g.shape[2:]) == (1, 1):
        return g.expand(-1, -1, *size)
    if tuple(g.shape[2:]) == size:
        return g
    return F.interpolate(g, size=size, mode="nearest")
