"""Training on a handful of small images: what it computes, and that it can be cut off."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

multilabel = pytest.importorskip(
    "words.multilabel", reason="the recipes' packages aren't installed"
)
from safetensors.torch import load_file  # noqa: E402

from pixels import Pixels, augment, normalise  # noqa: E402
from words import checkpoint, lite0  # noqa: E402

# Lightning Fabric warns about its own environment; none of it is about the recipe.
pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = multilabel.Settings(size=32, head_epochs=1, epochs=2, batch=4, seed=3)


@pytest.fixture
def splits() -> dict[str, Pixels]:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8)
    targets = torch.rand(24, 5).round()
    parts = {"train": slice(0, 12), "dev": slice(12, 18), "test": slice(18, 24)}
    return {name: Pixels(images[rows], targets[rows]) for name, rows in parts.items()}


def new_model() -> torch.nn.Module:
    torch.manual_seed(1)
    return lite0.create(5, None, 0.3, 0.1)


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    splits: dict[str, Pixels], tmp_path: Path
) -> None:
    def train(file: Path, stop_after: int | None = None) -> multilabel.Fit:
        def report(entry: dict[str, object]) -> None:
            if entry["epoch"] == stop_after:
                raise KeyboardInterrupt

        return multilabel.fit(
            new_model(), splits["train"], splits["dev"], SETTINGS,
            state_file=file, accelerator="cpu", report=report,
        )  # fmt: skip

    whole = train(tmp_path / "whole.safetensors")
    for stop in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut.safetensors", stop_after=stop)
    resumed = train(tmp_path / "cut.safetensors")
    kept = ("epoch", "phase", "loss", "dev_map")
    assert [{k: e[k] for k in kept} for e in whole.history] == [
        {k: e[k] for k in kept} for e in resumed.history
    ]
    assert resumed.epoch == whole.epoch
    assert all(torch.equal(resumed.weights[k], v) for k, v in whole.weights.items())
    last = [load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(last[1][k], v) for k, v in last[0].items())


def test_the_head_is_trained_on_frozen_features(splits: dict[str, Pixels]) -> None:
    model = new_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    settings = dataclasses.replace(SETTINGS, epochs=0)
    multilabel.fit(model, splits["train"], splits["dev"], settings, accelerator="cpu")
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_label_weights_are_eq_6() -> None:
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert torch.equal(multilabel.label_weights(targets, "bce"), torch.ones(2))
    raw = torch.tensor([3 / 1, 1 / 3])  # images without the label / images with it
    weights = multilabel.label_weights(targets, "weighted")
    torch.testing.assert_close(weights, raw / raw.mean())


def test_mean_average_precision_leaves_out_labels_that_nothing_has() -> None:
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.1, 0.5], [0.1, 0.8, 0.5], [0.2, 0.0, 0.5]])
    # The second label's positives are first and third of three: (1/1 + 2/3) / 2.
    assert multilabel.mean_average_precision(targets, scores) == pytest.approx(
        100 * (1 + 5 / 6) / 2
    )


def test_augmentation_without_change_only_flips(splits: dict[str, Pixels]) -> None:
    images = splits["train"].images
    generator = torch.Generator().manual_seed(0)
    plain = normalise(images)
    # A crop of the whole area still changes its shape, so compare inside a wide margin.
    result = augment(images, crop=1.0, colour=0.0, generator=generator)
    assert result.shape == plain.shape
    assert result.min() >= -1
    assert result.max() <= 1
    assert not torch.equal(result, plain)


def test_checkpoint_folder(splits: dict[str, Pixels], tmp_path: Path) -> None:
    fit = multilabel.fit(new_model(), splits["train"], splits["dev"], SETTINGS, accelerator="cpu")
    recipe = checkpoint.Recipe(
        "tiny", "zoo/recipes/tiny.py", "tiny", "A test.", "caption-words", "Noise.", "Nobody.",
        "none", SETTINGS,
    )  # fmt: skip
    labels = ("a", "b", "c", "d", "e")
    config = checkpoint.write(tmp_path, recipe, labels, fit, splits, "here")
    assert json.loads((tmp_path / "feedback_adapter.json").read_text()) == config
    weights = load_file(tmp_path / "model.safetensors")
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float16}
    # The score is the one that a reader of the file measures.
    model = lite0.create(5, None)
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    logits = multilabel.predict(model, splits["dev"])
    again = multilabel.mean_average_precision(splits["dev"].targets.numpy(), logits)
    assert config["metrics"]["dev_map"] == pytest.approx(again, abs=1e-3)
    assert "tiny" in (tmp_path / "README.md").read_text()


def test_weights_too_large_for_float16_are_refused() -> None:
    with pytest.raises(ValueError, match="big"):
        checkpoint.round_weights({"big": torch.tensor([1e6])})
