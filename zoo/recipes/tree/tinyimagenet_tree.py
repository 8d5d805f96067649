"""tinyimagenet-tree: 100 fine and 20 coarse classes, trained from scratch.

The pretrained networks have seen these photos; this one has seen nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import load_file

import pixels
from fa_evaluate.data.base import LabelledImages
from fa_evaluate.data.tinyimagenet import read_fine, read_groups
from feedback_adapter.checkpoint import write_folder
from feedback_adapter.networks import MultiHead
from tree.tree_training import Settings, Tree, accuracy, fit
from words.checkpoint import machine, round_weights

NAME = "tinyimagenet-tree"
KWARGS: dict[str, Any] = {
    "backbone": "resnet18d",
    "heads": {"fine": 100, "coarse": 20},
    "max_pool": False,
    "channels": [48, 96, 192, 384],
    "stem_width": 24,
}
LICENSE = "ImageNet: non-commercial research and education only"
CARD = """# tinyimagenet-tree

One of 100 fine classes, and one of the 20 coarse classes that they are in: two heads on the same
features, as in section 4.2 of Feedback-prop.

- **Network**: timm `resnet18d`, narrower (48, 96, 192, 384 channels) and without max pooling, with
  two linear heads (`feedback_adapter.networks.MultiHead`); 6.3 million parameters.
- **Input**: 64 x 64 RGB, mean and standard deviation 0.5.
- **Weights**: float16; trained from scratch, since pretrained networks have seen these photos.

## Data

Tiny-ImageNet (Stanford cs231n), 100 of its classes grouped by hand along WordNet; a tenth of the
training images, by a hash of their numbers, is dev; its official validation images are test.

**Licence**: {license}

## Scores

Share of images whose class ranks first, 0 to 100.

| split | images | fine | coarse |
| --- | --- | --- | --- |
{rows}

## Training

{epochs} passes, SGD with Nesterov momentum, cosine from {lr:g}, CutMix or mixup on {mix:.0%} of the
steps, an exponential average of the weights; {seconds} on {machine}. **Short**: the
machine's time ran out, and with more passes the scores rise much further.

    python zoo/recipes tinyimagenet-tree --data DATA --out OUT
"""


def main(
    data: Annotated[Path, typer.Option(help="Folder with tinyimagenet_h.npz.")],
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes.")] = Settings.epochs,
    weights: Annotated[Path | None, typer.Option(help="Trained already: only measure.")] = None,
    note: Annotated[Path | None, typer.Option(help="With --weights: its tree.json.")] = None,
) -> None:
    """Train tinyimagenet-tree, measure it and write the checkpoint."""
    images, groups = read_fine(data, None), read_groups(data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = dataclasses.replace(Settings(), epochs=epochs)
    torch.manual_seed(settings.seed)
    model = MultiHead(**KWARGS, drop_path_rate=settings.drop_path).to(device)
    where, seconds = machine(), 0.0
    if weights is None:
        begun = time.perf_counter()
        train = tree(images.subset("train"), groups).to(device)
        model = fit(
            model, train, settings, dev=tree(images.subset("dev"), groups).to(device),
            report=lambda entry, _: typer.echo(entry),
        )  # fmt: skip
        seconds = time.perf_counter() - begun
    else:
        model.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        if note is not None:
            told = json.loads(note.read_text())
            settings, where = Settings(**told["settings"]), told["device"]
            seconds = told["history"][-1]["seconds"]
    write(out, model.cpu(), images, groups, settings, where, seconds)


def tree(images: LabelledImages, groups: dict[str, list[str]]) -> Tree:
    """Decode a split."""
    parent = {fine: place for place, members in enumerate(groups.values()) for fine in members}
    fine = images.targets.argmax(1)
    coarse = np.array([parent[label] for label in images.labels])[fine]
    decoded = pixels.load(images, 64).images
    return Tree(decoded, torch.from_numpy(fine), torch.from_numpy(coarse))


def write(
    out: Path,
    model: MultiHead,
    images: LabelledImages,
    groups: dict[str, list[str]],
    settings: Settings,
    where: str,
    seconds: float,
) -> None:
    """Write the folder, with scores measured after rounding to float16."""
    rounded = round_weights(model.state_dict())
    model.load_state_dict({k: v.float() for k, v in rounded.items()})
    metrics: dict[str, float] = {}
    rows: list[str] = []
    for split in ("dev", "test"):
        part = tree(images.subset(split), groups)
        found = accuracy(model, part, batch=64)
        metrics |= {f"{split}_{name}": round(value, 3) for name, value in found.items()}
        rows.append(f"| {split} | {len(part):,} | {found['fine']:.2f} | {found['coarse']:.2f} |")
    config = {
        "name": NAME,
        "summary": (
            "One of 100 fine classes and one of 20 coarse ones of a 64 x 64 image (Tiny-ImageNet)."
        ),
        "architecture": {"library": "feedback_adapter", "model": "multihead", "kwargs": KWARGS},
        "outputs": {
            "fine": {
                "kind": "multiclass", "labels": list(images.labels), "select": "fine",
                "hierarchy": groups,
            },
            "coarse": {"kind": "multiclass", "labels": list(groups), "select": "coarse"},
        },
        "transform": {
            "size": [64, 64], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3
        },
        "data": {
            "source": "tinyimagenet-fine",
            "citation": "Tiny-ImageNet, Stanford cs231n; ImageNet: Deng et al., CVPR 2009.",
        },
        "training": {
            "recipe": "zoo/recipes/tree/tinyimagenet_tree.py",
            **dataclasses.asdict(settings),
            "machine": where,
            "seconds": seconds,
        },
        "metrics": metrics,
        "license": LICENSE,
    }  # fmt: skip
    card = CARD.format(
        license=LICENSE, rows="\n".join(rows), epochs=settings.epochs, lr=settings.lr,
        mix=settings.mix, seconds=f"{seconds:.0f} seconds", machine=where,
    )  # fmt: skip
    write_folder(out, config, rounded, weights={"dtype": "float16"}, text=card)
    typer.echo(f"{NAME} is in {out}: {metrics}")


if __name__ == "__main__":
    typer.run(main)
