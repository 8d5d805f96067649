"""Write flickr8k-caption-lite0's folder: feedback_adapter.json, model.safetensors, README.md."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import typer

import feedback_adapter as fa
from captions.caption_training import Fit, Settings
from fa_evaluate.data import LabelledImages
from feedback_adapter.checkpoint import write_folder
from feedback_adapter.networks import Captioner
from verify_scores import caption_scores
from words.caption_words import RECIPE
from words.checkpoint import machine, round_weights

NAME = "flickr8k-caption-lite0"
PIVOTS = ["backbone.conv_head"]
REFERENCE = {"pivots": PIVOTS, "steps": 10, "step_size": 0.4}
REFINE: dict[str, Any] = {
    "strategy": "residual",
    "pivots": PIVOTS,
    "options": {"solver": "gradient", "step_size": 10.0, "steps": 10},
    "reference": {"residual": REFERENCE, "layerwise": REFERENCE},
}
"""What `refine` does by default, and the published forms' settings: all chosen on dev."""
CARD = """# {name}

{summary}

- **Network**: the backbone and the words of `{base}`, weights unchanged, and an LSTM
  decoder on the same pooled features ({width} wide, {hidden} units, told the image at every step;
  `feedback_adapter.networks.Captioner`).
- **Input**: {size} x {size} RGB, squashed (the aspect ratio is not kept), bicubic, mean and
  standard deviation 0.5.
- **Outputs**: `words`, {words} labels, each with its own probability (sigmoid); `caption`, what
  the decoder needs to write a caption from a vocabulary of {vocabulary:,} words.
- **Weights**: float16; the scores below are after that rounding, computed in float32.

## Data

{data}

Captions of at most 18 words were trained on; longer ones are cut there.

{citation}

**Licence**: {license}

## Scores

Captions against the five of each photo: CIDEr-D (times 100) and BLEU-4 (0 to 100), of beam
search with 3 beams; words lower-cased, without punctuation. Words: mean over labels of average
precision, 0 to 100. Settings and the pass were chosen on dev; test was measured once.

| split | images | CIDEr | BLEU-4 | words mAP |
| --- | --- | --- | --- | --- |
{rows}

## Training

{epochs} passes over the training captions, AdamW, learning rate {lr:g} (cosine), {views} views of
each photo (as it is, and random crops, flips and colours). In {refined:.0%} of the captions the
features were those that feedback from a random part of the photo's words had made of them, so
that the decoder learns to read what feedback writes. The weights are those after pass
{epoch}, the best CIDEr of plain features on dev. {seconds:.0f} seconds on {machine}, after the
features had been computed.

To make it again, with the data in a folder DATA (packed or official layout):

    pip install 'feedback-adapter-zoo[recipes]'
    python zoo/recipes caption-decoder --data DATA --out OUT

Every setting is in `feedback_adapter.json` under "training".
"""


def write(
    out: Path,
    model: Captioner,
    base: fa.Adapter,
    vocabulary: Sequence[str],
    settings: Settings,
    fit: Fit,
    parts: Mapping[str, LabelledImages],
    captions: Mapping[str, Sequence[Sequence[str]]],
    views: int,
) -> dict[str, Any]:
    """Write the folder, with scores measured after rounding to float16.

    Args:
        out: Made if it isn't there.
        model: Trained.
        base: The checkpoint that the backbone and the words are from.
        vocabulary: The decoder's words.
        settings: How it was trained.
        fit: How that went.
        parts: The images of "train", "dev" and "test".
        captions: Their captions.
        views: How many of each photo were trained on.

    Returns:
        What feedback_adapter.json holds.
    """
    weights = round_weights(model.state_dict())
    assert base.transform is not None, "the zoo's checkpoints have a transform"
    config: dict[str, Any] = {
        "name": NAME,
        "summary": (
            "The words of a photo (multilabel) and a written caption, from the same features "
            "(Flickr8k)."
        ),
        "architecture": {
            "library": "feedback_adapter",
            "model": "captioner",
            "kwargs": {
                "backbone": base.model.default_cfg["architecture"],
                "words": len(base.labels),
                "vocabulary": len(vocabulary),
                "width": settings.width,
                "hidden": settings.hidden,
                "dropout": settings.dropout,
            },
        },
        "outputs": {
            "words": {"kind": "multilabel", "labels": list(base.labels), "select": "words"},
            "caption": {
                "kind": "tokens", "labels": list(vocabulary), "select": "caption",
                "decoder": "decoder",
            },
        },
        "transform": dataclasses.asdict(base.transform),
        "refine": REFINE,
        "data": {
            "source": RECIPE.source,
            "images": {split: len(part) for split, part in parts.items()},
            "citation": RECIPE.citation,
        },
        "training": {
            "recipe": "zoo/recipes/captions/caption_decoder.py",
            **dataclasses.asdict(settings),
            "views": views,
            "best_epoch": fit.epoch,
            "history": fit.history,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "machine": machine(),
            "seconds": round(fit.seconds, 1),
        },
        "metrics": {},
        "license": RECIPE.license,
    }  # fmt: skip
    write_folder(out, config, weights, weights={"dtype": "float16"})
    metrics: dict[str, float] = {}
    for split in ("dev", "test"):
        found = caption_scores(fa.load(out), parts[split], captions[split], split)
        metrics |= {f"{split}_{name}": round(value, 3) for name, value in found.items()}
    config["metrics"] = metrics
    text = _card(config, settings, fit, views)
    config = write_folder(out, config, weights, weights={"dtype": "float16"}, text=text)
    typer.echo(f"{NAME} is in {out}: {metrics}")
    return config


def _card(config: dict[str, Any], settings: Settings, fit: Fit, views: int) -> str:
    images, outputs = config["data"]["images"], config["outputs"]
    rows: list[str] = []
    for split in ("dev", "test"):
        cider, bleu4, ap = (
            config["metrics"][f"{split}_{key}"] for key in ("cider", "bleu4", "map")
        )
        rows.append(f"| {split} | {images[split]:,} | {cider} | {bleu4} | {ap} |")
    return CARD.format(
        name=NAME, summary=config["summary"], base=RECIPE.name, width=settings.width,
        hidden=settings.hidden, size=config["transform"]["size"][0],
        words=len(outputs["words"]["labels"]), vocabulary=len(outputs["caption"]["labels"]),
        data=RECIPE.data, citation=RECIPE.citation, license=RECIPE.license, rows="\n".join(rows),
        epochs=settings.epochs, lr=settings.lr, views=views, refined=settings.refined,
        epoch=fit.epoch, seconds=fit.seconds, machine=config["training"]["machine"],
    )  # fmt: skip
