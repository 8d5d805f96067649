"""What a checkpoint scores without any evidence, by the names that its card uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

import feedback_adapter as fa
from fa_evaluate.caption_metrics import bleu, cider
from fa_evaluate.data import LabelledImages, read
from fa_evaluate.data.flickr8k import read_captions
from fa_evaluate.metrics import mean_average_precision
from feedback_adapter.checkpoint import read_config
from feedback_adapter.evidence.captions import tokenise
from feedback_adapter.outputs import Outputs

__all__ = ["BEAM", "FOLDERS", "caption_scores", "card_scores", "scores"]

FOLDERS = {
    "caption-words": "flickr8k",
    "coco-objects": "coco6k",
    "tinyimagenet-fine": "tinyimagenet_h",
    "fashion": "fashion-mnist",
    "cifar10": "cifar10",
}
"""Where the data of each source is, below the folder that `--data` names."""

BEAM = 3
"""How many beams write the captions whose scores are on a card."""


def card_scores(config: dict[str, Any], split: str) -> dict[str, float]:
    """The scores of a split on a checkpoint's card: `test_map` and `{"test": {...}}` alike."""
    metrics = config["metrics"]
    if isinstance(metrics.get(split), dict):
        return dict(metrics[split])
    start = f"{split}_"
    return {k.removeprefix(start): v for k, v in metrics.items() if k.startswith(start)}


def scores(folder: Path, data: Path, split: str) -> dict[str, float]:
    """Measure a checkpoint on a split.

    Args:
        folder: The checkpoint's.
        data: Folder that holds the folders of `FOLDERS`.
        split: "dev" or "test".

    Returns:
        Scores in percent (CIDEr times 100), by their names on the card.
    """
    source = read_config(folder)["data"]["source"]
    note = f"{folder.name}, {split}"
    if source in ("fashion", "cifar10"):
        return _loop_scores(folder, source, data / FOLDERS[source], split)
    adapter = fa.load(folder)
    name, spec = next(iter(adapter.outputs.items()))
    images = read(data / FOLDERS[source], spec.labels, source).subset(split)
    if any(spec.kind == "tokens" for spec in adapter.outputs.values()):
        captions = read_captions(data / FOLDERS[source]).of_split(split)
        return caption_scores(adapter, images, captions, note)
    outputs = predict(adapter, images, note)
    if spec.hierarchy is not None:
        return _tree_scores(adapter, outputs, images)
    return {"map": mean_average_precision(outputs[name].numpy(), images.targets)}


def caption_scores(
    adapter: fa.Adapter, images: LabelledImages, captions: Sequence[Sequence[str]], note: str
) -> dict[str, float]:
    """`{"cider", "bleu4", "map"}` of a model of words and captions."""
    outputs = predict(adapter, images, note)
    written = [text.split() for text in fa.write_captions(outputs, beam=BEAM)]
    references = [[tokenise(text) for text in of_image] for of_image in captions]
    return {
        "cider": 100 * float(cider(written, references).mean()),
        "bleu4": bleu(written, references),
        "map": mean_average_precision(outputs["words"].numpy(), images.targets),
    }


def predict(adapter: fa.Adapter, images: LabelledImages, note: str, batch: int = 32) -> Outputs:
    """What a model says of all images."""
    transform = adapter.transform
    assert transform is not None, "the zoo's checkpoints have a transform"
    parts: list[dict[str, Tensor]] = []
    for start in track(range(0, len(images), batch), note, console=Console(stderr=True)):
        rows = range(start, min(start + batch, len(images)))
        found = adapter.predict(torch.stack([transform(images.open(row)) for row in rows]))
        parts.append(found if isinstance(found, dict) else {next(iter(adapter.outputs)): found})
    logits = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Outputs(logits, adapter.outputs)


def _tree_scores(adapter: fa.Adapter, outputs: Outputs, images: LabelledImages) -> dict[str, float]:
    """Share of images whose fine, and whose coarse, class ranks first."""
    hierarchy = adapter.outputs["fine"].hierarchy
    assert hierarchy is not None, "the fine classes have coarse ones"
    parent = {fine: place for place, members in enumerate(hierarchy.values()) for fine in members}
    fine = images.targets.argmax(1)
    truth = {"fine": fine, "coarse": np.array([parent[label] for label in images.labels])[fine]}
    return {
        name: 100 * float((outputs[name].argmax(1).numpy() == right).mean())
        for name, right in truth.items()
    }


def _loop_scores(folder: Path, source: str, data: Path, split: str) -> dict[str, float]:
    """Accuracy on clean images, at iteration 0, at the last one of training, and of their mean."""
    import fa_cnnf
    from fa_cnnf.data import read_splits, to_input

    elsewhere = source == "fashion" and not data.is_dir()
    _, dev, test = read_splits(source, None if elsewhere else data)
    part = dev if split == "dev" else test
    model: Any = fa_cnnf.load(folder).model
    with torch.inference_mode():
        rounds = [model.unroll(to_input(p), model.steps).logits for p in part.images.split(500)]
    each = torch.cat(rounds, 1)  # (iterations, images, classes)
    found = {"0": each[0], str(model.steps): each[-1], "avg": each.mean(0)}
    return {k: 100 * float((v.argmax(1) == part.labels).double().mean()) for k, v in found.items()}
