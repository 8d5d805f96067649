"""A head that labels every pixel, for the early stages of a classification network."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DenseHead"]


class DenseHead(nn.Sequential):
    """3x3 convolutions and a label for each pixel, at the resolution of the features.

    Args:
        channels: Of the features.
        labels: K.
        width: Channels in between, a multiple of 8.
        blocks: How many residual blocks come before the last layer.
    """

    def __init__(self, channels: int, labels: int, width: int = 64, blocks: int = 0) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            *[_Residual(width) for _ in range(blocks)],
            nn.Conv2d(width, labels, 1),
        )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)
