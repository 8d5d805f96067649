"""The front door: a model and what its outputs mean, or a checkpoint, becomes an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import nn

from feedback_adapter.adapter import Adapter
from feedback_adapter.checkpoint import HUB, LOCAL, timm_model
from feedback_adapter.checkpoint import read as read_checkpoint
from feedback_adapter.errors import ModelError
from feedback_adapter.outputs import SINGLE, Kind, Output
from feedback_adapter.timm_notes import check_width, labels_of, transform_of_timm
from feedback_adapter.transform import PhotoTransform, transform_of

__all__ = ["load", "wrap"]


def wrap(
    model: nn.Module | str,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    kind: Kind | None = None,
    *,
    outputs: Mapping[str, Output] | None = None,
    transform: PhotoTransform | Callable[[Image.Image], Any] | None = None,
) -> Adapter:
    """Make an adapter for a model. The model is used as it is and never changed.

    Args:
        model: Any `nn.Module` that maps images to logits; or timm's name of a model that is
            saved in timm's format, `"hf-hub:owner/name[@revision]"` or `"local-dir:FOLDER"`,
            whose weights must be in `model.safetensors`.
        labels: A name for each entry of its output, in order: a list, an array, or `{id: name}`.
            timm's ImageNet models need none, nor do models whose `pretrained_cfg` has
            `"label_names"`.
        kind: `"multilabel"` (independent sigmoids) or `"multiclass"` (one softmax). By default
            multilabel where `labels` are given, and multiclass where timm notes them.
        outputs: For a model that returns several tensors: `{name: Output(...)}`.
        transform: How photos become its input, for the command line and pictures: a `Transform`,
            or any function from a Pillow image to a tensor (channels, height, width), such as
            torchvision's and timm's transforms. It is tried once, on a grey photo.

    Raises:
        CheckpointError: A name that can't be reached, or whose files aren't safe or damaged.
        ModelError: Neither or both of `labels` and `outputs`, labels that don't fit, or a
            transform that doesn't return what a model takes.

    Example:
        >>> import timm, feedback_adapter as fa
        >>> model = timm.create_model("resnet18", num_classes=3)
        >>> fa.wrap(model, labels=["dog", "snow", "ball"])
        Adapter(ResNet, output: multilabel of 3)
    """
    if isinstance(model, str) and model.startswith((HUB, LOCAL)):
        model = timm_model(model)
    if not isinstance(model, nn.Module):
        given = f"{model!r:.80}" if isinstance(model, str) else f"a {type(model).__name__}"
        raise ModelError(
            f"model is {given}: pass an nn.Module, or text such as 'hf-hub:owner/name' or "
            "'local-dir:FOLDER'."
        )
    if labels is not None and outputs is not None:
        raise ModelError(
            "Say what the model returns in one way: labels=[...] for one output, "
            "or outputs={name: Output(...)} for several."
        )
    noted = labels is None and outputs is None
    if noted:
        labels, kind = labels_of(model), "multiclass" if kind is None else kind
    if transform is None:
        transform = transform_of_timm(model)
    if outputs is None:
        names = cast("tuple[str, ...]", labels)
        output = Output(names, "multilabel" if kind is None else kind)
        if not noted:
            check_width(model, len(output.labels))
        outputs = {SINGLE: output}
    given = outputs if isinstance(outputs, Mapping) else {}
    if not all(isinstance(n, str) and isinstance(o, Output) for n, o in given.items()) or not given:
        raise ModelError(
            f"outputs={outputs!r:.200} is not possible: pass {{name: Output(labels)}} for at least "
            "one output, with text as names."
        )
    return Adapter(model, outputs, transform=transform_of(transform))


def load(
    name: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "cpu"
) -> Adapter:
    """A checkpoint as a ready adapter.

    Args:
        name: The name of a checkpoint of the zoo or of another plugin; a folder; or
            `"hf-hub:owner/name"`, a repository that `Adapter.push_to_hub` made, with `@revision`
            after it for another revision than the newest.
        model: For a checkpoint that doesn't say how its model is built: the model, built by
            you; the weights are loaded into it.
        device: Where the model goes.

    Raises:
        CheckpointError: The name is unknown or can't be reached, a file is missing or damaged,
            the config isn't what a config may be, or the weights don't fit.

    Example:
        >>> import feedback_adapter as fa
        >>> adapter = fa.load("caption-words-lite0")  # of feedback-adapter-zoo
        >>> adapter.card.license
        'Flickr8k: non-commercial research and education only'
    """
    return Adapter(**vars(read_checkpoint(name, model=model, device=device)))
