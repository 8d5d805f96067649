"""CNN-F checkpoints: the core reads and checks them, this plugin says how their nets are built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import feedback_adapter as fa
from fa_cnnf.convert import convert
from fa_cnnf.loops import CNNF
from fa_cnnf.nets import FashionNet, WideResNet
from feedback_adapter.checkpoint import find, read_config
from feedback_adapter.errors import CheckpointError

__all__ = ["LIBRARY", "build", "load"]

LIBRARY = "fa_cnnf"
"""What feedback_adapter.json says under architecture.library."""


def build(net: str, kwargs: Mapping[str, Any]) -> CNNF:
    """A CNN-F with fresh weights; torch's random state decides them.

    Args:
        net: `"fashion"`, or `"wrn-DEPTH-WIDTH"`. Nothing else: a name never imports anything.
        kwargs: Options of `fa_cnnf.convert`.

    Raises:
        CheckpointError: No such net, or no such option.
    """
    kind, *sizes = net.split("-")
    try:
        if net == "fashion":
            feedforward = FashionNet()
        elif kind == "wrn" and len(sizes) == 2:
            feedforward = WideResNet(int(sizes[0]), int(sizes[1]))
        else:
            raise ValueError("'fashion' and 'wrn-DEPTH-WIDTH' are possible")
        return convert(feedforward, **kwargs)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"fa_cnnf can't build {net!r} with {dict(kwargs)}: {error}"
        ) from error


def load(name: str | Path, *, device: str | torch.device = "cpu") -> fa.Adapter:
    """A CNN-F checkpoint as a ready adapter; its `model` is a `CNNF`.

    `feedback_adapter.load`, for checkpoints of this plugin alone.

    Args:
        name: The name of a checkpoint of the zoo or of another plugin, or a folder.
        device: Where the model goes.

    Raises:
        CheckpointError: Unknown name, not a checkpoint of CNN-F, or one that is damaged.
    """
    architecture = read_config(find(name))["architecture"] or {}
    if architecture.get("library") != LIBRARY:
        raise CheckpointError(
            f"{str(name)!r} is not a checkpoint of CNN-F (its library is "
            f"{architecture.get('library')!r}): use feedback_adapter.load."
        )
    return fa.load(name, device=device)
