"""The front door: a model and what its outputs mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import ModelError
from feedback_adapter.outputs import SINGLE, Kind, Output

if TYPE_CHECKING:
    from feedback_adapter.checkpoint import Transform

__all__ = ["wrap"]


def wrap(
    model: nn.Module,
    labels: Sequence[str] | None = None,
    kind: Kind = "multilabel",
    *,
    outputs: Mapping[str, Output] | None = None,
    transform: Transform | None = None,
) -> Adapter:
    """Make an adapter for a model. The model is used as it is and never changed.

    Args:
        model: Any `nn.Module` that maps images to logits.
        labels: A name for each entry of its output, in order.
        kind: `"multilabel"` (independent sigmoids) or `"multiclass"` (one softmax).
        outputs: For a model that returns several tensors: `{name: Output(...)}`.
        transform: How photos become its input, for the command line and pictures.

    Raises:
        ModelError: Neither or both of `labels` and `outputs`, or labels that don't fit.

    Example:
        >>> import timm, feedback_adapter as fa
        >>> model = timm.create_model("resnet18", num_classes=3)
        >>> fa.wrap(model, labels=["dog", "snow", "ball"])
        Adapter(ResNet, output: multilabel of 3)
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model is a {type(model).__name__}: pass an nn.Module.")
    if (labels is None) == (outputs is None):
        raise ModelError(
            "Say what the model returns in one way: labels=[...] for one output, "
            "or outputs={name: Output(...)} for several."
        )
    if outputs is None:
        if isinstance(labels, str):
            raise ModelError("labels is one string: pass a list with a name per output entry.")
        outputs = {SINGLE: Output(tuple(labels or ()), kind)}
    elif not outputs:
        raise ModelError("outputs is empty: name at least one output.")
    count = getattr(model, "num_classes", None)
    if labels is not None and isinstance(count, int) and count not in (0, len(labels)):
        raise ModelError(
            f"{len(labels)} labels for a model with {count} classes: give one label per class."
        )
    return Adapter(model, outputs, transform=transform)
