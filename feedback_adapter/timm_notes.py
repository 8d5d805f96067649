"""What timm notes on its models: the classes they were trained for, and how they take photos."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from feedback_adapter.errors import ModelError
from feedback_adapter.evidence.hierarchy import imagenet_labels
from feedback_adapter.sites import frozen
from feedback_adapter.transform import Transform


def labels_of(model: nn.Module) -> tuple[str, ...]:
    """The classes that a timm model notes: its label names, or ImageNet's, of 1,000 or more.

    The width of the output is found by running the model on one image, not by `num_classes`.

    Raises:
        ModelError: It isn't one of timm's, or its output isn't that wide.
    """
    note = _note(model)
    if note is None:
        raise ModelError(
            "Say what the model returns in one way: labels=[...] for one output, or "
            "outputs={name: Output(...)} for several. Only timm's models say it themselves."
        )
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    width, names = _width(model, note), note.get("label_names")
    if isinstance(names, list | tuple) and len(names) == width:
        return tuple(map(str, names))
    subset, expected = infer_imagenet_subset(note), note.get("num_classes")
    if subset is None or width != expected:
        raise ModelError(
            f"The model returns {width} numbers for an image, and timm notes no names for them: "
            "give labels=[...] with a name for each."
        )
    if width == len(imagenet_labels()):
        return imagenet_labels()
    info = ImageNetInfo(subset)
    names = [info.index_to_description(index).split(",")[0] for index in range(width)]
    count = Counter(names)
    return tuple(
        name if count[name] == 1 else f"{name} ({info.index_to_label_name(index)})"
        for index, name in enumerate(names)
    )


def check_width(model: nn.Module, labels: int) -> None:
    """Refuse labels of another number than a timm model returns, tried on an image."""
    note = _note(model)
    if note is None or getattr(model, "num_classes", labels) == labels:
        return
    width = _width(model, note)
    if width != labels:
        raise ModelError(
            f"{labels} labels for a model that returns {width} numbers for an image: give one "
            "label for each."
        )


def transform_of_timm(model: nn.Module) -> Transform | None:
    """How a timm model for photos in colour takes them; `None` for other models."""
    note = _note(model)
    if note is None or _input(model, note)[0] != 3:
        return None
    from timm.data.config import resolve_data_config

    config = resolve_data_config(pretrained_cfg=note)
    height, width = _input(model, note)[1:]
    interpolation = config["interpolation"]
    return Transform(
        size=(height, width),
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        mean=config["mean"],
        std=config["std"],
    )


def _note(model: nn.Module) -> dict[str, Any] | None:
    note = getattr(model, "pretrained_cfg", None)
    usable = isinstance(note, dict) and len(note.get("input_size") or ()) == 3
    return note if usable else None


def _input(model: nn.Module, note: dict[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of a model's images: as it was built, else as timm notes it."""
    channels, height, width = note["input_size"]
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if isinstance(size, tuple):
        height, width = size
    return stem_channels(model, channels), height, width


def stem_channels(model: nn.Module, otherwise: int = 3) -> int:
    """How many channels a model's images have, by its first convolution, if there is one."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first is not None else otherwise


def _width(model: nn.Module, note: dict[str, Any]) -> int:
    """How many numbers a model returns for an image."""
    like = next(
        (p for p in model.parameters() if p.is_floating_point()), torch.empty(0, device="cpu")
    )
    image = torch.zeros(1, *_input(model, note), device="cpu").to(like)
    try:
        with frozen(model, watch=False), torch.no_grad():
            found = model(image)
    except Exception as error:  # a model that was changed may fail in any way
        raise ModelError(
            f"The model can't be run on an image {tuple(image.shape)}, as timm notes its size: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise ModelError(
            "The model doesn't return one row of numbers for an image: say which of its outputs "
            "are which with outputs={name: Output(...)}."
        )
    return found.shape[1]
