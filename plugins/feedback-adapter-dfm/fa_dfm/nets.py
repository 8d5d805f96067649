"""Small networks: one that sees 11 pixels, a U-Net that sees them all, and a ResNet for 32 x 32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NETS", "SmallResNet", "SmallView", "UNet"]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(4, outputs), nn.ReLU()
    )


class SmallView(nn.Module):
    """3x3 convolutions at full resolution: each output sees a square of 2 depth + 1 pixels.

    Args:
        labels: Outputs per pixel.
        channels: Of the images.
        width: Channels of the features, a multiple of 4.
        depth: Convolutions in all, the head included, at least 3.
    """

    def __init__(self, labels: int = 1, channels: int = 1, width: int = 12, depth: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, width)
        self.blocks = nn.Sequential(*[_block(width, width) for _ in range(depth - 2)])
        self.head = nn.Conv2d(width, labels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to logits (batch, labels, height, width)."""
        return self.head(self.blocks(F.relu(self.norm(self.stem(images)))))


class UNet(nn.Module):
    """Three resolutions with skip connections. Sides must be multiples of 4.

    Args:
        labels: Outputs per pixel.
        channels: Of the images.
        width: Channels of the features at full resolution, a multiple of 4.
    """

    def __init__(self, labels: int = 1, channels: int = 1, width: int = 12) -> None:
        super().__init__()
        w = width
        self.stem = nn.Conv2d(channels, w, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, w)
        self.fine = _block(w, w)
        self.middle = nn.Sequential(_block(w, 2 * w), _block(2 * w, 2 * w))
        self.coarse = nn.Sequential(_block(2 * w, 4 * w), _block(4 * w, 4 * w))
        self.up_middle = _block(6 * w, 2 * w)
        self.up_fine = _block(3 * w, w)
        self.head = nn.Conv2d(w, labels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to logits (batch, labels, height, width)."""
        fine = self.fine(F.relu(self.norm(self.stem(images))))
        middle = self.middle(F.max_pool2d(fine, 2))
        coarse = self.coarse(F.max_pool2d(middle, 2))
        up = self.up_middle(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        up = self.up_fine(torch.cat([F.interpolate(up, scale_factor=2.0), fine], 1))
        return self.head(up)


class SmallResNet(nn.Module):
    """The ResNet of 6 n + 2 layers for images of 32 x 32, with group norms.

    Source: 'Deep Residual Learning for Image Recognition' (CVPR 2016), section 4.2.

    Args:
        labels: Outputs.
        blocks: n, residual blocks in each of the three stages; 3 makes ResNet-20.
        width: Channels of the first stage, a multiple of 4 and more than 4: group norms over
            one channel erase what is the same everywhere, as fed back classes are.
    """

    def __init__(self, labels: int = 10, blocks: int = 3, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, width)
        stages = []
        for stage in range(3):
            for block in range(blocks):
                first = stage > 0 and block == 0
                inputs = width * 2**stage // (2 if first else 1)
                stages.append(_Residual(inputs, width * 2**stage, 2 if first else 1))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, 32, 32) to logits (batch, labels)."""
        features = self.stages(F.relu(self.norm(self.conv(images))))
        return self.fc(self.pool(features).flatten(1))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(4, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.GroupNorm(4, outputs),
        )
        self.widen = outputs - inputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # The shortcut without weights: every second pixel, and channels of zeros.
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.widen))
        return F.relu(self.main(x) + short)


NETS = {"small-view": SmallView, "unet": UNet, "small-resnet": SmallResNet}
"""The networks of this plugin, as checkpoints name them."""
