"""Turn a convolutional model into a CNN-F."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from fa_cnnf.errors import no_such_site
from fa_cnnf.layers import AdaReLU, FeedbackNorm, InstanceNorm, Layer
from fa_cnnf.layers.chains import Chain, Fork
from fa_cnnf.layers.pools import AdaPool, AdaptiveAveragePool, AveragePool
from fa_cnnf.loops import CNNF
from fa_cnnf.rules import layers_of
from feedback_adapter.errors import OptionsError
from feedback_adapter.sites import INPUT, Site

__all__ = ["convert", "sites"]


def convert(
    model: nn.Module,
    site: str | Site = INPUT,
    steps: int = 1,
    step_size: float = 0.1,
    *,
    norms: bool = True,
    head_norm: str = "channel",
    inner: Sequence[str] = (),
) -> CNNF:
    """Make a CNN-F of a model by walking its modules. The model itself isn't changed.

    The first pass computes what the model does in evaluation mode (BatchNorm is folded into
    the convolution before it; dropout is left out). Weights are copies.

    Args:
        model: A torchvision VGG or ResNet, a timm ResNet, a net of `fa_cnnf.nets`, or a
            `Sequential` of the modules in `fa_cnnf.SUPPORTED`.
        site: The activation that feedback reconstructs: `"input"`, or the path of a module
            of the model after which the net can be cut in two (see `sites`).
        steps: How many feedback iterations, T, at least 0.
        step_size: How far features and AdaReLUs move towards their feedback, eta, 0 to 1.
        norms: `False` leaves out all instance norms, forward and feedback.
        head_norm: Of feedback below an average pool, where it is constant over space:
            `"channel"` as published (which keeps only its sign), or `"sample"`.
        inner: Further sites at which `CNNF.unroll` reports features and reconstructions.

    Raises:
        UnsupportedModuleError: A module has no counterpart.
        SiteError: There is no such site, or an inner one lies below it.
        OptionsError: An option is out of range.
    """
    if head_norm not in ("channel", "sample"):
        raise OptionsError(f"head_norm={head_norm!r} is not possible: 'channel' and 'sample' are.")
    layers = _normalised(layers_of(model), head_norm)
    if not norms:
        layers = _without_norms(layers)
    for key, layer in Chain(layers).named_modules():
        if isinstance(layer, Layer):
            layer.key = key
    names = [str(name) for name in (site, *inner)]
    cuts = [_cut(layers, name) for name in names]
    if any(cut <= cuts[0] for cut in cuts[1:]):
        raise no_such_site(names[1], _above(layers, cuts[0]))
    order = sorted(range(len(cuts)), key=cuts.__getitem__)
    edges = [*(cuts[i] for i in order), len(layers)]
    return CNNF(
        bottom=Chain(layers[: cuts[0]]),
        segments=[Chain(layers[a:b]) for a, b in itertools.pairwise(edges)],
        sites=[names[i] for i in order],
        steps=steps,
        step_size=step_size,
    )


def sites(model: nn.Module) -> list[str]:
    """Names at which a model can be cut: `"input"`, then from the first layer to the last.

    Raises:
        UnsupportedModuleError: A module of the model has no counterpart.
    """
    layers = _normalised(layers_of(model), "channel")
    return [INPUT, *_above(layers, 0)]


def _above(layers: Sequence[Layer], cut: int) -> list[str]:
    names: dict[str, int] = {}
    for layer in layers[:-1]:
        name = layer.name
        while name:  # a group ends with its last block
            names[name] = _cut(layers, name)
            name = name.rpartition(".")[0]
    return sorted((name for name in names if names[name] > cut), key=lambda name: names[name])


def _cut(layers: Sequence[Layer], name: str) -> int:
    """How many layers come before the cut after module `name`."""
    if name == INPUT:
        return 0
    inside = [
        index
        for index, layer in enumerate(layers[:-1])
        if layer.name == name or layer.name.startswith(f"{name}.")
    ]
    if not inside:
        raise no_such_site(name, [INPUT, *_above(layers, 0)])
    return inside[-1] + 1


def _normalised(layers: Sequence[Layer], head_norm: str) -> list[Layer]:
    """Put a feedback norm above each activation and the max pool that follows it."""
    result: list[Layer] = []
    waiting = False
    for layer in [*layers, None]:
        if waiting and not isinstance(layer, AdaPool):
            head = isinstance(layer, (AveragePool, AdaptiveAveragePool))
            norm = FeedbackNorm(head_norm if head else "channel")
            norm.name = result[-1].name
            result.append(norm)
            waiting = False
        if layer is None:
            break
        if isinstance(layer, Fork):
            name = layer.name
            layer = Fork(*(_inside(branch, head_norm) for branch in (layer.main, layer.shortcut)))
            layer.name = name
        result.append(layer)
        waiting = waiting or (isinstance(layer, AdaReLU) and layer.normalise)
    return result


def _inside(chain: Chain, head_norm: str) -> Chain:
    return Chain(_normalised(list(chain.layers), head_norm))  # pyright: ignore[reportArgumentType]


def _without_norms(layers: Sequence[Layer]) -> list[Layer]:
    result: list[Layer] = []
    for layer in layers:
        if isinstance(layer, (FeedbackNorm, InstanceNorm)):
            continue
        if isinstance(layer, Fork):
            name = layer.name
            branches = (list(layer.main.layers), list(layer.shortcut.layers))
            layer = Fork(*(Chain(_without_norms(branch)) for branch in branches))  # pyright: ignore
            layer.name = name
        result.append(layer)
    return result
