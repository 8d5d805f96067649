"""A small checkpoint and photos for tests of the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import feedback_adapter as fa

LABELS = ("dog", "snow", "ball", "grass", "red", "water")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A small timm model with the labels of a made-up Flickr8k, saved in a folder."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=len(LABELS))
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 48, 64))
        model.fc.weight.mul_(5)
    adapter = fa.Adapter(
        model.eval(), {"output": fa.Output(LABELS)}, transform=fa.Transform((48, 64), "bilinear"),
        defaults=fa.Defaults("residual", ("layer3",), {"steps": 3, "step_size": 0.05}),
    )  # fmt: skip
    folder = adapter.save(tmp_path_factory.mktemp("zoo") / "tiny-words")
    config = json.loads((folder / "feedback_adapter.json").read_text())
    config["data"] = {"source": "caption-words"}
    config["refine"]["reference"] = {"residual": {"steps": 2, "pivots": ["layer2"]}}
    (folder / "feedback_adapter.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("# tiny-words\n\nIt scores **nothing**.")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> list[Path]:
    """Photos of sizes of their own, one in a file whose name looks like markup."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    names = ["first.png", "second [red].jpg"]
    for name, size in zip(names, [(40, 60, 3), (80, 30, 3)], strict=True):
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    return [folder / name for name in names]
