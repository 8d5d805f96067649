"""The net for 28 x 28 grey images: four convolutions, three linear layers."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from fa_cnnf.layers import rms_norm

__all__ = ["Bias", "FashionNet", "InstanceRMSNorm"]


class InstanceRMSNorm(nn.Module):
    """x / sqrt(mean over height and width of x^2 + 1e-8); nothing is learned."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, h, w), the same shape."""
        return rms_norm(x)


class Bias(nn.Module):
    """x + b per channel, b being 0 at first.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, h, w), the same shape."""
        return x + self.bias


class FashionNet(nn.Sequential):
    """1-16-32-32(pool)-64(pool) convolutions of 3 x 3, then 3136-1000-128-classes.

    Source: the supplement of 'Neural Networks with Recurrent Generative Feedback', the
    Fashion-MNIST experiments. The site of the published results is `"relu2"`, the input of
    the third convolution. Inputs are (batch, 1, 28, 28) in [-1, 1].

    Args:
        classes: How many.
    """

    def __init__(self, classes: int = 10) -> None:
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (width, out, pool) in enumerate(
            [(1, 16, False), (16, 32, False), (32, 32, True), (32, 64, True)], 1
        ):
            modules[f"conv{number}"] = nn.Conv2d(width, out, 3, padding=1, bias=False)
            modules[f"norm{number}"] = InstanceRMSNorm()
            modules[f"bias{number}"] = Bias(out)
            modules[f"relu{number}"] = nn.ReLU()
            if pool:
                modules[f"pool{number}"] = nn.MaxPool2d(2)
        modules["flatten"] = nn.Flatten()
        modules["fc1"] = nn.Linear(64 * 7 * 7, 1000)
        modules["relu5"] = nn.ReLU()
        modules["fc2"] = nn.Linear(1000, 128)
        modules["relu6"] = nn.ReLU()
        modules["fc3"] = nn.Linear(128, classes)
        super().__init__(modules)
        initialise(self)


def initialise(model: nn.Module) -> None:
    """PyTorch's default weights, biases 0.

    He's larger weights would make the logits grow by a factor of 24 in the first iteration:
    AdaReLU keeps the units that agree with feedback, so that all add up.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
