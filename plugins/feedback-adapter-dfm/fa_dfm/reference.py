"""The published network, number for number, to show what its loop computes.

Read from the paper's code: the matrix S of its decay stays at ones, so that the learned rotation
does nothing and step t weighs e^(-t/tau). At the published tau of .2 the second step weighs .007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from feedback_adapter.errors import OptionsError

__all__ = ["Reference", "reference"]

_GROUPS = 8  # of the two normalisations without weights


class Reference(nn.Module):
    """The ResNet of 'Deep Feedback Models', which `reference` makes.

    Args:
        layers: Basic blocks in each of the four stages.
        feedback: Channels that are fed back, a multiple of 8.
        labels: Outputs.
        tau: In steps, above 0.
    """

    def __init__(self, layers: Sequence[int], feedback: int, labels: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64 + feedback, 64, layers[0], 1)
        self.layer2 = _stage(64, 128, layers[1], 2)
        self.layer3 = _stage(128, 256, layers[2], 2)
        self.layer4 = _stage(256, 512 + feedback, layers[3], 2)
        self.fc = nn.Linear(512, labels)
        self.feedback = feedback

    def forward(self, images: Tensor, steps: int = 4) -> Tensor:
        """Images (batch, 3, height, width) to logits (batch, labels) after T steps, T >= 0."""
        return self.unroll(images, steps)[-1]

    def unroll(self, images: Tensor, steps: int) -> Tensor:
        """The logits (T + 1, batch, labels) before the first and after each step."""
        s = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        h: Tensor | None = None
        logits = [self.fc.bias.expand(len(images), -1)]  # of a state of zeros
        for t in range(steps):
            delta = self._look(s, h) * math.exp(-t / self.tau)
            h = delta if h is None else h + delta
            u = h[:, : self.fc.in_features]
            logits.append(self.fc(u.mean((2, 3))))
        return torch.stack(logits)

    def _look(self, s: Tensor, h: Tensor | None) -> Tensor:
        if h is None:
            v = s.new_zeros(len(s), self.feedback, *s.shape[2:])
        else:
            v = F.group_norm(h[:, self.fc.in_features :], _GROUPS)
            v = F.interpolate(v, size=s.shape[2:], mode="bilinear", align_corners=False)
        v = v.softmax(1)
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        f = torch.cat([s, v], 1)
        for stage in stages:
            f = stage(f)
        return F.group_norm(f, _GROUPS)


def reference(
    layers: Sequence[int] = (1, 1, 1, 1), feedback: int = 8, labels: int = 10, tau: float = 0.2
) -> Reference:
    """The published network with fresh weights.

    Args:
        layers: Basic blocks in each of the four stages.
        feedback: Channels that are fed back, a multiple of 8.
        labels: Outputs.
        tau: How many steps the loop remembers, above 0; .2 as published.

    Raises:
        OptionsError: An option is out of range.
    """
    if len(layers) != 4 or feedback % _GROUPS or feedback < 1 or not tau > 0:
        raise OptionsError(
            f"layers={layers!r}, feedback={feedback!r}, tau={tau!r}: four stages, a multiple of "
            f"{_GROUPS} channels and a tau above 0 are needed."
        )
    return Reference(layers, feedback, labels, tau)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    made = []
    for block in range(blocks):
        narrow, step = (inputs, stride) if block == 0 else (outputs, 1)
        short = None
        if narrow != outputs or step != 1:
            short = nn.Sequential(
                nn.Conv2d(narrow, outputs, 1, step, bias=False), nn.BatchNorm2d(outputs)
            )
        made.append(BasicBlock(narrow, outputs, step, short))
    return nn.Sequential(*made)
