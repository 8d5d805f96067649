"""How each kind of module becomes layers that run in both directions.

A rule gets a module and its path and returns the layers in forward order. Weights are
copied, so that the user's model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool, SelectAdaptivePool2d
from timm.models import resnet as timm_resnet
from torch import Tensor, nn
from torchvision.models import resnet as tv_resnet
from torchvision.models import vgg as tv_vgg

from fa_cnnf.errors import UnsupportedModuleError
from fa_cnnf.layers.base import Layer
from fa_cnnf.layers.chains import Chain, Fork
from fa_cnnf.layers.linear import Affine, Bias, Conv, Flatten, Linear
from fa_cnnf.layers.norms import FeedbackNorm as _FeedbackNorm
from fa_cnnf.layers.norms import InstanceNorm
from fa_cnnf.layers.pools import AdaPool, AdaptiveAveragePool, AveragePool
from fa_cnnf.layers.relu import AdaReLU
from fa_cnnf.nets import Bias as BiasModule
from fa_cnnf.nets import InstanceRMSNorm, PreactBlock, WideResNet

__all__ = ["SUPPORTED", "layers_of"]

SUPPORTED = (
    "Conv2d (zero padding; stride, dilation, groups), Linear, BatchNorm2d, ReLU, ReLU6, "
    "LeakyReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, Dropout, Identity, Sequential",
    "torchvision VGG and ResNet",
    "timm ResNet (BasicBlock and Bottleneck without squeeze-excitation or blur pooling)",
    "fa_cnnf.nets.FashionNet and WideResNet",
)
"""What `convert` can turn around."""

Rule = Callable[[Any, str], list[Layer]]


def layers_of(module: nn.Module, path: str = "") -> list[Layer]:
    """The layers of a module, in forward order, each named after the module it came from.

    Args:
        module: Any supported module; it isn't changed.
        path: Its path in the model, for names and errors.

    Raises:
        UnsupportedModuleError: A module inside has no counterpart.
    """
    for kind, rule in RULES.items():
        if type(module) is kind or (isinstance(module, kind) and kind in SUBCLASSES):
            layers = rule(module, path)
            break
    else:
        raise UnsupportedModuleError(path, module, "there is no rule for it.", SUPPORTED)
    for layer in layers:
        layer.name = layer.name or path
    return layers


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _copy(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)  # pyright: ignore


def _sequence(children: Sequence[tuple[str, nn.Module]], path: str) -> list[Layer]:
    layers: list[Layer] = []
    for name, child in children:
        for layer in layers_of(child, _join(path, name)):
            above = layers[-1] if layers else None
            if isinstance(layer, Affine) and isinstance(above, Conv):
                _fold(above, layer)
                above.name = layer.name
            else:
                layers.append(layer)
    return layers


def _fold(conv: Conv, norm: Affine) -> None:
    """Take a BatchNorm in evaluation into the convolution before it."""
    scale, shift = norm.scale.detach(), norm.shift.detach().flatten()
    weight = conv.weight.detach() * scale.reshape(-1, 1, 1, 1)
    bias = shift if conv.bias is None else conv.bias.detach() * scale.flatten() + shift
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)


def _conv(module: nn.Conv2d, path: str) -> list[Layer]:
    padding = module.padding
    if module.padding_mode != "zeros" and padding not in (0, (0, 0), "valid"):
        why = f"padding_mode={module.padding_mode!r} has no transpose here."
        raise UnsupportedModuleError(path, module, why, SUPPORTED)
    if isinstance(padding, str):
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if padding == "same" and any(t % 2 for t in total):
            why = "padding='same' is uneven for an even kernel."
            raise UnsupportedModuleError(path, module, why, SUPPORTED)
        padding = (total[0] // 2, total[1] // 2) if padding == "same" else (0, 0)
    return [
        Conv(
            _copy(module.weight),
            None if module.bias is None else _copy(module.bias),
            _pair(module.stride),
            _pair(padding),
            _pair(module.dilation),
            module.groups,
        )
    ]


def _linear(module: nn.Linear, path: str) -> list[Layer]:
    del path
    return [Linear(_copy(module.weight), None if module.bias is None else _copy(module.bias))]


def _batch_norm(module: nn.BatchNorm2d, path: str) -> list[Layer]:
    if module.running_mean is None or module.running_var is None:
        why = "it has no running statistics to fold."
        raise UnsupportedModuleError(path, module, why, SUPPORTED)
    scale = torch.rsqrt(module.running_var + module.eps)
    if module.weight is not None:
        scale = scale * module.weight.detach()
    shift = -module.running_mean * scale
    if module.bias is not None:
        shift = shift + module.bias.detach()
    return [Affine(_copy(scale.view(1, -1, 1, 1)), _copy(shift.view(1, -1, 1, 1)))]


def _max_pool(module: nn.MaxPool2d, path: str) -> list[Layer]:
    del path
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    padding, dilation = _pair(module.padding), _pair(module.dilation)
    return [AdaPool(kernel, stride, padding, dilation, module.ceil_mode)]


def _average_pool(module: nn.AvgPool2d, path: str) -> list[Layer]:
    if module.divisor_override is not None:
        raise UnsupportedModuleError(path, module, "divisor_override is set.", SUPPORTED)
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    padding, pads_count = _pair(module.padding), module.count_include_pad
    return [AveragePool(kernel, stride, padding, module.ceil_mode, pads_count)]


def _select_pool(module: SelectAdaptivePool2d, path: str) -> list[Layer]:
    pool = module.pool
    if isinstance(pool, nn.Identity):
        return _sequence([("flatten", module.flatten)], path)
    if isinstance(pool, FastAdaptiveAvgPool) and pool.dim == (2, 3):
        return [AdaptiveAveragePool((1, 1)), *([Flatten()] if pool.flatten else [])]
    return _sequence([("pool", pool), ("flatten", module.flatten)], path)


def _flatten(module: nn.Flatten, path: str) -> list[Layer]:
    if module.start_dim != 1 or module.end_dim != -1:
        raise UnsupportedModuleError(path, module, "it must keep the batch only.", SUPPORTED)
    return [Flatten()]


def _named(module: nn.Module, path: str, *names: str) -> list[Layer]:
    return _sequence([(name, module.get_submodule(name)) for name in names], path)


def _vgg(module: tv_vgg.VGG, path: str) -> list[Layer]:
    flatten = Flatten()
    flatten.name = _join(path, "avgpool")
    return [
        *_named(module, path, "features", "avgpool"),
        flatten,
        *_named(module, path, "classifier"),
    ]


def _tv_resnet(module: tv_resnet.ResNet, path: str) -> list[Layer]:
    stem = ("conv1", "bn1", "relu", "maxpool")
    flatten = Flatten()
    flatten.name = _join(path, "avgpool")
    groups = ("layer1", "layer2", "layer3", "layer4", "avgpool")
    return [*_named(module, path, *stem, *groups), flatten, *_named(module, path, "fc")]


def _timm_resnet(module: timm_resnet.ResNet, path: str) -> list[Layer]:
    names = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return _named(module, path, *names, "global_pool", "fc")


def _residual(
    module: nn.Module, path: str, main: list[Layer], act: nn.Module, act_name: str
) -> list[Layer]:
    downsample = module.get_submodule("downsample") if module.downsample is not None else None  # pyright: ignore
    shortcut = [] if downsample is None else layers_of(downsample, _join(path, "downsample"))
    after = layers_of(act, _join(path, act_name))
    after[-1].name = path
    return [Fork(Chain(main), Chain(shortcut)), *after]


def _tv_block(module: Any, path: str) -> list[Layer]:
    count = 3 if isinstance(module, tv_resnet.Bottleneck) else 2
    names = [n for i in range(1, count + 1) for n in (f"conv{i}", f"bn{i}", "relu")][:-1]
    return _residual(module, path, _named(module, path, *names), module.relu, "relu")


def _timm_block(module: Any, path: str) -> list[Layer]:
    for name in ("se", "drop_block", "aa"):
        part = getattr(module, name, None)
        if part is not None and not isinstance(part, nn.Identity):
            raise UnsupportedModuleError(_join(path, name), part, "it has no rule.", SUPPORTED)
    count = 3 if isinstance(module, timm_resnet.Bottleneck) else 2
    names = [n for i in range(1, count + 1) for n in (f"conv{i}", f"bn{i}", f"act{i}")][:-1]
    last = f"act{count}"
    return _residual(module, path, _named(module, path, *names), getattr(module, last), last)


def _preact_block(module: PreactBlock, path: str) -> list[Layer]:
    before = _named(module, path, "norm1", "bias1", "relu1")
    after = _named(module, path, "conv1", "norm2", "bias2", "relu2", "conv2")
    below = _FeedbackNorm()
    below.name = _join(path, "relu1")
    if module.shortcut is None:
        fork = Fork(Chain([*before, *after]), Chain([]))
        return [fork]
    before[-1] = AdaReLU(normalise=False)  # only the residual branch is normalised
    before[-1].name = below.name
    shortcut = layers_of(module.shortcut, _join(path, "shortcut"))
    return [*before, Fork(Chain([below, *after]), Chain(shortcut))]


def _wide_resnet(module: WideResNet, path: str) -> list[Layer]:
    names = ("conv1", "group1", "group2", "group3", "norm", "bias", "relu", "pool", "flatten", "fc")
    return _named(module, path, *names)


def _sequential(module: nn.Sequential, path: str) -> list[Layer]:
    return _sequence(list(module.named_children()), path)


RULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda module, path: [AdaReLU()],
    nn.ReLU6: lambda module, path: [AdaReLU(limit=6.0)],
    nn.LeakyReLU: lambda module, path: [AdaReLU(slope=module.negative_slope)],
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: lambda module, path: [AdaptiveAveragePool(_pair(module.output_size))],
    SelectAdaptivePool2d: _select_pool,
    nn.Flatten: _flatten,
    nn.Identity: lambda module, path: [],
    nn.Dropout: lambda module, path: [],
    InstanceRMSNorm: lambda module, path: [InstanceNorm()],
    BiasModule: lambda module, path: [Bias(_copy(module.bias))],
    PreactBlock: _preact_block,
    WideResNet: _wide_resnet,
    tv_vgg.VGG: _vgg,
    tv_resnet.ResNet: _tv_resnet,
    tv_resnet.BasicBlock: _tv_block,
    tv_resnet.Bottleneck: _tv_block,
    timm_resnet.ResNet: _timm_resnet,
    timm_resnet.BasicBlock: _timm_block,
    timm_resnet.Bottleneck: _timm_block,
    nn.Sequential: _sequential,
}

SUBCLASSES = (nn.Sequential,)
"""Kinds whose subclasses keep the forward pass: only `Sequential`, if it isn't overridden."""
