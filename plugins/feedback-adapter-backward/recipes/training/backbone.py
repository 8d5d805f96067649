"""A network of convolutions and poolings whose features compose.

Each convolution is followed by division by its channels' root mean square and by
ReLU(y - |b|), so that nothing in the image gives nothing in every layer.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

CATEGORIES = 3


@dataclass(frozen=True)
class Layer:
    """One convolution: channels, kernel size, and the name of the site if a pooling follows."""

    channels: int
    kernel: int
    pooled: str = ""


LAYERS = (
    Layer(24, 5, "pool1"),
    Layer(48, 3, "pool2"),
    Layer(96, 3),
    Layer(96, 3, "pool3"),
    Layer(128, 3),
    Layer(128, 3, "pool4"),
    Layer(96, 3),
)
TOP = "top"
STRIDES = {"pool1": 2, "pool2": 4, "pool3": 8, "pool4": 16, TOP: 16}


class Backbone(nn.Module):
    """The training form; `plain` gives the same function as an ordinary `nn.Sequential`."""

    def __init__(self, layers: tuple[Layer, ...] = LAYERS):
        super().__init__()
        self.layers = layers
        channels = [3, *(layer.channels for layer in layers)]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], layer.channels, layer.kernel, padding=layer.kernel // 2)
            for i, layer in enumerate(layers)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)
            nn.init.constant_(conv.bias, 0.1)
        for i, layer in enumerate(layers):
            self.register_buffer(f"rms{i}", torch.ones(layer.channels))
        self.classes = nn.Conv2d(channels[-1], CATEGORIES, 1)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Activations at every site, and the same before the last ReLU (and pooling)."""
        x, sites, before = images, {}, {}
        for i, (conv, layer) in enumerate(zip(self.convs, self.layers, strict=True)):
            y = F.conv2d(x, conv.weight, None, padding=conv.padding)
            y = y / self._rms(i, y).to(y.dtype)[:, None, None] - conv.bias.abs()[:, None, None]
            x = F.relu(y)
            name = layer.pooled or (TOP if i == len(self.layers) - 1 else "")
            if layer.pooled:
                x = F.max_pool2d(x, 2)
            if name:
                sites[name], before[name] = x, y
        return sites, before

    def _rms(self, i: int, y: Tensor) -> Tensor:
        running = getattr(self, f"rms{i}")
        if not self.training:
            return running
        rms = y.float().square().mean((0, 2, 3)).sqrt() + 1e-5
        with torch.no_grad():
            running.lerp_(rms, 0.05)
        return rms


def plain(net: Backbone) -> nn.Sequential:
    """Fold the norms into convolutions; the last modules give one logit per category."""
    modules: list[tuple[str, nn.Module]] = []
    for i, (conv, layer) in enumerate(zip(net.convs, net.layers, strict=True)):
        folded = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding
        )
        with torch.no_grad():
            folded.weight.copy_(conv.weight / getattr(net, f"rms{i}")[:, None, None, None])
            folded.bias.copy_(-conv.bias.abs())
        last = i == len(net.layers) - 1
        modules += [(f"conv{i + 1}", folded), (TOP if last else f"relu{i + 1}", nn.ReLU())]
        if layer.pooled:
            modules.append((layer.pooled, nn.MaxPool2d(2)))
    head = nn.Conv2d(net.classes.in_channels, CATEGORIES, 1)
    head.load_state_dict(net.classes.state_dict())
    modules += [("classes", head), ("anywhere", nn.AdaptiveMaxPool2d(1)), ("flat", nn.Flatten())]
    return nn.Sequential(OrderedDict(modules)).eval()


class Heads(nn.Module):
    """What training asks of the features: masks per category, and the object's colours."""

    def __init__(self, layers: tuple[Layer, ...] = LAYERS):
        super().__init__()
        channels = {layer.pooled: layer.channels for layer in layers if layer.pooled}
        channels[TOP] = layers[-1].channels
        self.masks = nn.ModuleDict(
            {
                site: nn.Conv2d(channels[site], CATEGORIES * STRIDES[site] ** 2, 3, padding=1)
                for site in ("pool2", "pool3", TOP)
            }
        )
        self.colours = nn.Conv2d(channels[TOP], 3 * 16, 3, padding=1)

    def mask(self, site: str, features: Tensor) -> Tensor:
        """Logits (n, categories, side, side) of each pixel's being seen of a category."""
        return F.pixel_shuffle(self.masks[site](features), STRIDES[site])
