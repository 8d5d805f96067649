"""Models cut by hand at three places each: what an iteration costs at best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["CUTS", "Cut"]


@dataclasses.dataclass(frozen=True)
class Cut:
    """A timm model as a row of parts.

    Args:
        model: Its name.
        parts: Gives the model's parts in order, by path where they have one.
        sites: Where to cut: early, in the middle and late.
        size: Side of the images.
        kwargs: What the model is built with.
    """

    model: str
    parts: Callable[[Any], Sequence[tuple[str, Callable[[Tensor], Tensor]]]]
    sites: tuple[str, str, str]
    size: int
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def head(self, model: nn.Module, site: str, images: Tensor) -> Tensor:
        """The activation at a site."""
        for name, part in self.parts(model):
            images = part(images)
            if name == site:
                break
        return images

    def tail(self, model: nn.Module, site: str) -> Callable[[Tensor], Tensor]:
        """What follows the site."""
        names = [name for name, _ in self.parts(model)]
        parts = [part for _, part in self.parts(model)][names.index(site) + 1 :]

        def run(activation: Tensor) -> Tensor:
            for part in parts:
                activation = part(activation)
            return activation

        return run


def _named(prefix: str, parts: Any) -> list[tuple[str, Any]]:
    return [(f"{prefix}.{index}", part) for index, part in enumerate(parts)]


def _resnet(m: Any) -> list[tuple[str, Any]]:
    stem = [m.conv1, m.bn1, m.act1, m.maxpool]
    layers = [(f"layer{i}", getattr(m, f"layer{i}")) for i in range(1, 5)]
    return [*(("", part) for part in stem), *layers, ("", m.global_pool), ("", m.fc)]


def _efficientnet(m: Any) -> list[tuple[str, Any]]:
    last = [m.conv_head, m.bn2, m.global_pool, m.classifier]
    return [("", m.conv_stem), ("", m.bn1), *_named("blocks", m.blocks), *(("", p) for p in last)]


def _convnext(m: Any) -> list[tuple[str, Any]]:
    return [("", m.stem), *_named("stages", m.stages), ("", m.norm_pre), ("", m.head)]


def _vit(m: Any) -> list[tuple[str, Any]]:
    first = [m.patch_embed, m._pos_embed, m.patch_drop, m.norm_pre]
    last = [m.norm, m.forward_head]
    return [*(("", p) for p in first), *_named("blocks", m.blocks), *(("", p) for p in last)]


def _swin(m: Any) -> list[tuple[str, Any]]:
    return [("", m.patch_embed), *_named("layers", m.layers), ("", m.norm), ("", m.head)]


CUTS = (
    Cut("resnet18", _resnet, ("layer1", "layer2", "layer3"), 128),
    Cut("resnet50", _resnet, ("layer1", "layer2", "layer3"), 112),
    Cut("tf_efficientnet_lite0", _efficientnet, ("blocks.1", "blocks.3", "blocks.5"), 128),
    Cut("convnext_atto", _convnext, ("stages.0", "stages.1", "stages.2"), 128),
    Cut("vit_tiny_patch16_224", _vit, ("blocks.2", "blocks.5", "blocks.8"), 128, {"img_size": 128}),
    Cut(
        "swin_tiny_patch4_window7_224", _swin, ("layers.0", "layers.1", "layers.2"), 112,
        {"img_size": 112},
    ),
)  # fmt: skip
