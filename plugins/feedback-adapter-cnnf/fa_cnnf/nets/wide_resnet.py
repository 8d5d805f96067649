"""The wide ResNet for 32 x 32 colour images, with instance norms."""

from __future__ import annotations

from torch import Tensor, nn

from fa_cnnf.nets.fashion import Bias, InstanceRMSNorm, initialise
from feedback_adapter.errors import OptionsError

__all__ = ["PreactBlock", "WideResNet"]


class PreactBlock(nn.Module):
    """norm, bias, ReLU, conv, twice, and a shortcut.

    Where width or stride changes, the shortcut is a 1 x 1 convolution that shares the first
    pre-activation; else it is the identity before it.

    Args:
        width: Channels of the input.
        out: Channels of the output.
        stride: Of the first convolution.
    """

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.bias1, self.relu1 = InstanceRMSNorm(), Bias(width), nn.ReLU()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.norm2, self.bias2, self.relu2 = InstanceRMSNorm(), Bias(out), nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = (
            nn.Conv2d(width, out, 1, stride, bias=False) if stride > 1 or width != out else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, h, w) to (batch, out, h / stride, w / stride)."""
        a = self.relu1(self.bias1(self.norm1(x)))
        y = self.conv2(self.relu2(self.bias2(self.norm2(self.conv1(a)))))
        return y + (x if self.shortcut is None else self.shortcut(a))


class WideResNet(nn.Module):
    """A wide ResNet with pre-activation and instance norms (WRN-depth-width).

    Source: the supplement of 'Neural Networks with Recurrent Generative Feedback', the
    CIFAR-10 experiments (WRN-40-2). Inputs are (batch, 3, 32, 32) in [-1, 1]. Sites of the
    published code: `"input"`, and the blocks of the first group, `"group1.0"` and so on.

    Args:
        depth: 6 n + 4 for n blocks a group.
        width: Factor over 16, 32 and 64 channels.
        classes: How many.

    Raises:
        OptionsError: The depth isn't 6 n + 4 with n above 0.
    """

    def __init__(self, depth: int = 40, width: int = 2, classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise OptionsError(f"depth={depth} is not possible: it must be 10, 16, 22, 28, ...")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        last = 64 * width
        self.group1 = _group(16, 16 * width, 1, blocks)
        self.group2 = _group(16 * width, 32 * width, 2, blocks)
        self.group3 = _group(32 * width, last, 2, blocks)
        self.norm, self.bias, self.relu = InstanceRMSNorm(), Bias(last), nn.ReLU()
        self.pool = nn.AvgPool2d(8)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(last, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 32, 32) in [-1, 1] to logits (batch, classes)."""
        x = self.group3(self.group2(self.group1(self.conv1(x))))
        return self.fc(self.flatten(self.pool(self.relu(self.bias(self.norm(x))))))


def _group(width: int, out: int, stride: int, blocks: int) -> nn.Sequential:
    rest = [PreactBlock(out, out) for _ in range(blocks - 1)]
    return nn.Sequential(PreactBlock(width, out, stride), *rest)
