"""A network and the generative model of its activations as one module, as checkpoints keep it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fa_backward.generative import IMAGE, Activations
from fa_backward.model import GenerativeModel
from fa_backward.network import Network
from fa_backward.search import SearchOptions
from feedback_adapter.errors import CheckpointError

LIBRARY = "fa_backward"
"""What feedback_adapter.json says under architecture.library."""

TOP = "top"


class GenerativeNet(nn.Module):
    """Convolutions, ReLUs and poolings, one logit per category, and their generative model.

    Args:
        layers: For each convolution its channels, its kernel's side and whether a pooling of
            2 x 2 follows.
        categories: Names, one logit each: the largest of a map.
        side: Of the images, in pixels.
        sites: Numbers of the poolings (from 1) that are sites below the top.
        templates: K of the top.
        components: K of the other sites.
        search: Options of the search that differ from the defaults.
    """

    def __init__(
        self,
        layers: Sequence[tuple[int, int, bool]],
        categories: Sequence[str],
        side: int,
        sites: Sequence[int],
        templates: int,
        components: int,
        search: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.net = chain(layers, len(categories))
        shapes, channels, size, pool = {}, {}, side, 0
        for width, _, pooled in layers:
            if pooled:
                size, pool = size // 2, pool + 1
                channels[pool] = (width, size, size)
        shapes[TOP] = (layers[-1][0], size, size)
        shapes |= {f"pool{number}": channels[number] for number in sorted(sites, reverse=True)}
        shapes[IMAGE] = (3, side, side)
        self.activations = Activations(shapes, tuple(categories), templates, components)
        self.search = SearchOptions(**{k: _tuple(v) for k, v in (search or {}).items()})

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) to logits (n, categories)."""
        return self.net(images)

    def generative(self) -> GenerativeModel:
        """The model to ask: `backward`, `parse`, `sample`."""
        network = Network(self.net, [name for name in self.activations.names if name != IMAGE])
        return GenerativeModel(network, self.activations, self.search, coverage=self.coverage)

    def coverage(self, images: Tensor) -> Tensor:
        """The share of each cell that each category covers, (n, categories, h, w)."""
        return torch.sigmoid(self.net[:-2](images))


def chain(layers: Sequence[tuple[int, int, bool]], categories: int) -> nn.Sequential:
    """The network itself: the last convolution's output is `top`, then a map of logits."""
    modules: list[tuple[str, nn.Module]] = []
    before, pool = 3, 0
    for number, (width, kernel, pooled) in enumerate(layers, 1):
        last = number == len(layers)
        modules.append((f"conv{number}", nn.Conv2d(before, width, kernel, padding=kernel // 2)))
        modules.append((TOP if last else f"relu{number}", nn.ReLU()))
        if pooled:
            pool += 1
            modules.append((f"pool{pool}", nn.MaxPool2d(2)))
        before = width
    modules += [
        ("classes", nn.Conv2d(before, categories, 1)),
        ("anywhere", nn.AdaptiveMaxPool2d(1)),
        ("flat", nn.Flatten()),
    ]
    return nn.Sequential(OrderedDict(modules))


def build(name: str, kwargs: Mapping[str, Any]) -> GenerativeNet:
    """The net that a checkpoint names, with any weights.

    Args:
        name: `"generative"`, nothing else.
        kwargs: Arguments of `GenerativeNet`.

    Raises:
        CheckpointError: No such net, or no such option.
    """
    if name != "generative":
        raise CheckpointError(f"fa_backward has no net {name!r}: 'generative' is possible.")
    try:
        return GenerativeNet(**kwargs)
    except (TypeError, ValueError, LookupError) as error:
        raise CheckpointError(f"fa_backward can't build {dict(kwargs)}: {error}") from error


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value
