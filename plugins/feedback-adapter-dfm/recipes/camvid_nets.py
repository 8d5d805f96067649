"""The networks for CamVid: early stages of a classification network, with a dense head."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from controls import start_from
from safetensors.torch import load_file
from torch import Tensor, nn

import fa_dfm
from fa_dfm import DFM
from fa_dfm.dense import DenseHead

__all__ = ["CLASSES", "METHODS", "SIZE", "SceneMethod"]

CLASSES, SIZE = 11, (180, 240)

LITE0 = "tf_efficientnet_lite0"


class LiteUNet(nn.Module):
    """EfficientNet-lite0, which sees the whole frame, and a decoder with skip connections."""

    def __init__(self, labels: int, width: int = 48) -> None:
        super().__init__()
        self.encoder = timm.create_model(LITE0, features_only=True)
        self.decoder = _Decoder(self.encoder.feature_info.channels(), width)
        self.head = nn.Conv2d(width, labels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to logits (batch, labels, height, width)."""
        x = self.head(self.decoder(self.encoder(images)))
        size = (images.shape[2], images.shape[3])
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class DeeperHead(nn.Module):
    """A head behind the later stages of EfficientNet-lite0, which see the whole frame.

    With the early stages it is a U-Net: what a decoder makes of the later ones is added to the
    features that `head` reads. At first that is nothing.

    Args:
        stages: `blocks` of EfficientNet-lite0, of which all behind `blocks.2` are used.
        head: Reads the features of `blocks.2`.
        width: Channels of the decoder.
    """

    def __init__(self, stages: nn.Sequential, head: nn.Module, width: int = 48) -> None:
        super().__init__()
        self.later = nn.ModuleList([stages[3:5], stages[5:7]])  # at strides 16 and 32
        self.decoder = _Decoder([40, 112, 320], width)
        self.join = nn.Conv2d(width, 40, 1)
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Features (batch, 40, height, width) to logits (batch, labels, height, width)."""
        levels = [x]
        for stage in self.later:
            levels.append(stage(levels[-1]))
        return self.head(x + self.join(self.decoder(levels)))


class _Decoder(nn.Module):
    """Brings features of several resolutions to the finest one, the coarsest first."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList([nn.Conv2d(c, width, 1) for c in channels])
        self.smooth = nn.ModuleList([_smoothing(width) for _ in channels])

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        maps = [narrow(level) for narrow, level in zip(self.narrow, levels, strict=True)]
        x = self.smooth[-1](maps[-1])
        for level, smooth in zip(reversed(maps[:-1]), reversed(self.smooth[:-1]), strict=True):
            x = smooth(level + F.interpolate(x, size=level.shape[2:], mode="nearest"))
        return x


def _smoothing(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU()
    )


@dataclasses.dataclass(frozen=True)
class SceneMethod:
    """One network for CamVid and how often it looks.

    Args:
        backbone: A model of timm, or `"unet"`.
        stage: Where it ends.
        channels: Of that stage.
        blocks: Residual blocks of the head.
        deeper: The head reads all later stages, too.
        looks: T.
        hidden: Channels of features that are fed back.
        lr: Largest learning rate.
    """

    backbone: str = LITE0
    stage: str = "blocks.2"
    channels: int = 40
    blocks: int = 0
    deeper: bool = False
    looks: int = 1
    hidden: int = 0
    lr: float = 1.5e-3

    def make(self, seed: int, weights: Path | None, control: Path | None = None) -> DFM:
        """The converted network; stages of EfficientNet-lite0 start from ImageNet weights.

        Args:
            seed: Of what is random.
            weights: A safetensors file with the weights of EfficientNet-lite0; `None`: random.
            control: A safetensors file with the trained `feedforward`, from which it starts.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            options = {"image_size": SIZE, "steps": self.looks, "hidden": self.hidden}
            pretrained = self.backbone in (LITE0, "unet") and weights is not None
            if self.backbone == "unet":
                model, body = LiteUNet(CLASSES), "encoder"
            else:
                norm = {} if self.backbone == LITE0 else {"norm_layer": "groupnorm"}
                model, body = timm.create_model(self.backbone, **norm), ""
                head = DenseHead(self.channels, CLASSES, blocks=self.blocks)
                options |= {"loop": self.stage}
                options |= {"head": DeeperHead(model.blocks, head) if self.deeper else head}
            if pretrained:
                _load(model.get_submodule(body), load_file(weights))
            net = fa_dfm.convert(model, frozen_norms=pretrained or control is not None, **options)
        if control is not None:
            last = {"model.head.3": f"model.head.{3 + self.blocks}"}
            start_from(
                net, control, {"model.head": "model.head.head"} if self.deeper else last, "main.1"
            )
        return net


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Take the weights that the model has; parts of the network that it lacks are left out."""
    missing, _ = model.load_state_dict(weights, strict=False)
    wrong = [name for name in missing if not name.startswith("classifier.")]
    if wrong:
        raise ValueError(f"The file has no weights for {wrong[:3]}.")


METHODS = {
    "loop": SceneMethod(looks=4, hidden=8),
    "feedforward": SceneMethod(),
    "untied": SceneMethod(blocks=25),
    "unet": SceneMethod("unet"),
    "unet around the control": SceneMethod(deeper=True),
    "loop, resnet18d from scratch": SceneMethod("resnet18d", "layer2", 128, looks=4, hidden=8),
    "loop, to stride 16": SceneMethod(stage="blocks.4", channels=112, looks=4, hidden=8),
    "feedforward, to stride 16": SceneMethod(stage="blocks.4", channels=112),
}
"""The methods of the table; `untied` does as many multiply-adds as `loop`."""
