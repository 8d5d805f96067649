"""A small checkpoint, and folders with a few photos."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image

import feedback_adapter as fa

LABELS = ("dog", "snow", "traffic light", "grass", "person", "water")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setattr(
        datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets"))
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small timm model, saved in a folder."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=len(LABELS))
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 32))
        model.fc.weight.mul_(5)
    adapter = fa.Adapter(
        model.eval(), {"output": fa.Output(LABELS)}, transform=fa.Transform((32, 32), "bilinear"),
        defaults=fa.Defaults("residual", ("layer3",), {"steps": 2, "step_size": 0.05}),
    )  # fmt: skip
    return adapter.save(tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture
def photos(tmp_path) -> Callable[..., Path]:
    """`photos(8)`: a folder with so many, `p0.png`, `p1.png` and so on."""

    def made(count: int, folder: Path = tmp_path / "photos", seed: int = 0) -> Path:
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(seed)
        for number in range(count):
            pixels = random.integers(0, 255, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"p{number}.png")
        return folder

    return made
