"""timm's ImageNet models as ready adapters: labels, transform and hierarchy filled in."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import timm

from feedback_adapter.adapter import Adapter
from feedback_adapter.checkpoint.hub import reach
from feedback_adapter.errors import CheckpointError, did_you_mean
from feedback_adapter.evidence.hierarchy import imagenet_labels
from feedback_adapter.wrapping import wrap


def pretrained(name: str, weights: str | Path | None = None) -> Adapter:
    """A timm model that knows ImageNet's 1,000 classes, as an adapter.

    Args:
        name: timm's name, such as `"tf_efficientnet_lite0"`.
        weights: A safetensors file with the weights, named as timm names them; `None`
            for timm's own, which it downloads once.

    Raises:
        CheckpointError: Unknown name, a model of other classes, or weights that can't be
            had or don't fit.
    """
    if not timm.is_model(name):
        raise CheckpointError(
            f"timm has no model {name!r}. {did_you_mean(name, timm.list_models())}"
        )
    cfg = timm.get_pretrained_cfg(name)
    if weights is None and cfg is not None and cfg.hf_hub_id:
        try:
            reach(str(cfg.hf_hub_id), "model.safetensors", "pytorch_model.bin")
        except CheckpointError as error:
            raise CheckpointError(f"{error} Or give a file: --weights FILE.") from error
    try:
        model = timm.create_model(name, pretrained=weights is None)
        if weights is not None:
            model.load_state_dict(safetensors.torch.load_file(weights))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        how = "" if weights is not None else " Give a file that you have: --weights FILE."
        raise CheckpointError(f"The weights of {name!r} can't be loaded: {error}{how}") from error
    adapter = wrap(model.eval())
    if len(adapter.labels) != len(imagenet_labels()):
        raise CheckpointError(f"{name!r} has {len(adapter.labels)} classes, not ImageNet's 1,000.")
    return adapter
