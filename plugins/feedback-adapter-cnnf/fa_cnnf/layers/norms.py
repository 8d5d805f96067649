"""The instance norms of CNN-F, forward and in the feedback pass."""

from __future__ import annotations

import torch
from torch import Tensor

from fa_cnnf.layers.base import Layer
from fa_cnnf.layers.state import State

__all__ = ["EPSILON", "FeedbackNorm", "InstanceNorm", "rms_norm"]

EPSILON = 1e-8
"""Added to the mean square before the root, as published."""


def rms_norm(x: Tensor, dims: tuple[int, ...] = (2, 3)) -> Tensor:
    """x / sqrt(mean x^2 + 1e-8): no mean is subtracted and nothing is learned.

    Args:
        x: (batch, channels, height, width).
        dims: What the mean runs over; (2, 3) is per sample and channel.
    """
    return x / torch.sqrt((x * x).mean(dims, keepdim=True) + EPSILON)


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
