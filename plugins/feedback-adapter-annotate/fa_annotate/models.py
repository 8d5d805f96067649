"""A model of timm whose labels are in a text file, as an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import timm

import feedback_adapter as fa
from fa_annotate.errors import AnnotateError
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import did_you_mean

__all__ = ["labelled"]


def labelled(
    model: str,
    labels: Path,
    weights: Path | None,
    *,
    kind: Literal["multilabel", "multiclass"] = "multilabel",
) -> Adapter:
    """A model of timm with labels of one's own.

    Args:
        model: Its name, as timm has it.
        labels: A text file with a label in each line, in the order of the model's classes.
        weights: A safetensors file; `None` for timm's own, which it downloads once.
        kind: Whether a photo can have any number of the labels, or exactly one.

    Raises:
        AnnotateError: Unknown model, a file that can't be read, or weights that don't fit.
    """
    try:
        names = [line.strip() for line in labels.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise AnnotateError(f"--labels {str(labels)!r} can't be read: {why}.") from error
    names = [name for name in names if name]
    if not names:
        raise AnnotateError(f"--labels {str(labels)!r} has no label: write one in each line.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotateError(f"--labels {str(labels)!r} names {twice[0]!r} twice: each once.")
    if ":" not in model and not timm.is_model(model):
        raise AnnotateError(
            f"timm has no model {model!r}. {did_you_mean(model, timm.list_models())}"
        )
    try:
        if weights is None:
            net = timm.create_model(model, pretrained=True)
        else:
            net = timm.create_model(model, num_classes=len(names))
            net.load_state_dict(safetensors.torch.load_file(weights))
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise AnnotateError(
            f"The weights of {model!r} with {len(names)} labels can't be loaded: {error} Give a "
            "safetensors file that fits: --weights FILE."
        ) from error
    if net.num_classes != len(names):
        raise AnnotateError(
            f"{model!r} has {net.num_classes} classes, and --labels {str(labels)!r} names "
            f"{len(names)}: write one label for each class, in the model's order."
        )
    return fa.wrap(net.eval(), labels=names, kind=kind)
