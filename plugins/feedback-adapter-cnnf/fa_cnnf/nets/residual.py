"""A small residual net with BatchNorm for 32 x 32 colour images: quick to train on a CPU."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["ResidualPair", "SmallResNet"]


class ResidualPair(nn.Module):
    """x + f(g(x)), f and g being a convolution, BatchNorm and ReLU each.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _block(width, width, 3), _block(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, h, w), the same shape."""
        return x + self.second(self.first(x))


class SmallResNet(nn.Sequential):
    """A stem at 16 x 16, then two stages at 8 x 8 and 4 x 4, each conv, pool, residual pair.

    Inputs are (batch, 3, 32, 32) in [-1, 1]; what feedback may reconstruct are `"stem"`,
    `"stage1"` and `"stage2"`.

    Args:
        width: Channels of the stem, at least 1; the stages have 2 and 4 times as many.
        classes: How many.
    """

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        stages["stem"] = _block(3, width, 4, stride=2)
        for number in (1, 2):
            out = width * 2**number
            stages[f"stage{number}"] = nn.Sequential(
                _block(out // 2, out, 3), nn.MaxPool2d(2), ResidualPair(out)
            )
        stages["pool"] = nn.AdaptiveMaxPool2d(1)
        stages["flatten"] = nn.Flatten()
        stages["fc"] = nn.Linear(4 * width, classes)
        super().__init__(stages)


def _block(width: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, out, kernel, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )
