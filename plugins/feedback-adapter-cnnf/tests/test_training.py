"""The training loop of the recipes."""

import sys
from pathlib import Path

import pytest
import torch

from fa_cnnf.data import Images

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
training = pytest.importorskip("cnnf_training", reason="the recipes' packages aren't installed")
settings = pytest.importorskip("cnnf_settings")


@pytest.mark.parametrize("adversarial", [False, True])
def test_fewer_images_than_a_batch_are_one_batch(adversarial):
    images = Images(torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8), torch.arange(5))
    own = settings.Settings(adversarial=adversarial, augment=True, attack_steps=1, batch=256)
    stepper = training.Stepper(settings.build(own), images, own, "eager")
    stepper.prepare()
    progress = training.fit(stepper, seed=0, epochs=2)
    assert progress.step == 2
    assert sorted(stepper.rows.tolist()) == [0, 1, 2, 3, 4]
    assert 0 < progress.history[1]["loss"] < float("inf")
