"""What a caption decoder is trained on: features of a frozen network, plain and refined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import feedback_adapter as fa
from pixels import augment, normalise

__all__ = ["Head", "block_maps", "head_adapter", "pooled", "refined"]


@torch.no_grad()
def block_maps(
    model: Any, images: Tensor, view: int = 0, *, crop: float = 0.5, batch: int = 32
) -> Tensor:
    """(N, channels, height, width) float16: what the last block of an EfficientNet gives.

    Args:
        model: A timm EfficientNet, in evaluation mode.
        images: (N, 3, size, size) uint8.
        view: 0 for the images as they are; another number for random crops, flips and
            colours, drawn from that seed.
        crop: Least share of the area that a crop keeps.
        batch: Images at a time.
    """
    generator = torch.Generator().manual_seed(view)
    model = model.eval().to(memory_format=torch.channels_last)
    parts: list[Tensor] = []
    for part in images.split(batch):
        shown = normalise(part)
        if view:
            shown = augment(part, crop=crop, colour=0.2, generator=generator)
        shown = shown.contiguous(memory_format=torch.channels_last)
        parts.append(model.blocks(model.bn1(model.conv_stem(shown))).half())
    return torch.cat(parts).contiguous()


class Head(nn.Module):
    """The rest of an EfficientNet: block maps to word logits and pooled features."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_head, self.bn2 = model.conv_head, model.bn2
        self.global_pool, self.classifier = model.global_pool, model.classifier

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        """`{"words": (batch, words), "features": (batch, channels)}`."""
        features = self.global_pool(self.bn2(self.conv_head(maps)))
        return {"words": self.classifier(features), "features": features}


def head_adapter(model: Any, words: Sequence[str]) -> fa.Adapter:
    """`Head`, to be told words; its features pass through as a tokens output."""
    outputs = {
        "words": fa.Output(tuple(words), "multilabel", "words"),
        "features": fa.Output(("feature",), "tokens", "features"),
    }
    return fa.wrap(Head(model).eval(), outputs=outputs)


@torch.no_grad()
def pooled(adapter: fa.Adapter, maps: Tensor, batch: int = 256) -> Tensor:
    """(N, channels) features as they are."""
    return torch.cat([adapter.model(part.float())["features"] for part in maps.split(batch)])


def refined(
    adapter: fa.Adapter,
    maps: Tensor,
    targets: Tensor,
    known: Tensor,
    arguments: dict[str, Any],
    batch: int = 64,
) -> Tensor:
    """(N, channels) features after feedback from known words.

    Args:
        adapter: From `head_adapter`.
        maps: (N, channels, height, width), from `block_maps`.
        targets: (N, words) 0 or 1.
        known: (N, words) bool: which of them feedback is told.
        arguments: Of `Adapter.refine`.
        batch: Images at a time.
    """
    parts: list[Tensor] = []
    for rows in torch.arange(len(maps)).split(batch):
        told = fa.Labels.from_tensors(targets[rows], known[rows], output="words")
        result = adapter.refine(maps[rows].float(), told, **arguments)
        parts.append(result.outputs_after["features"])
    return torch.cat(parts)
