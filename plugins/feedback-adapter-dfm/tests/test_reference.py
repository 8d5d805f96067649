"""The published arithmetic: every key of the golden file, to 1e-8 in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fa_dfm.errors import FeedbackAdapterError
from fa_dfm.reference import reference
from fa_dfm.updates import Published, decayed


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "dfm.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def published(golden):
    meta = json.loads(str(golden["meta"]))
    net = reference(meta["layers"], meta["fb_filters"], tau=meta["tau"]).double().eval()
    random = np.random.RandomState(3)
    parameters = dict(net.named_parameters())
    assert set(parameters) == {name for name, _ in meta["params"]}
    for name, shape in meta["params"]:
        draw = random.randn(*shape)
        if len(shape) > 1:
            value = draw * np.sqrt(1 / np.prod(shape[1:]))
        else:
            is_norm = ("bn" in name or "downsample.1" in name) and name.endswith("weight")
            value = 0.1 * draw + is_norm
        parameters[name].data = torch.from_numpy(value).reshape(parameters[name].shape)
    return net


@torch.no_grad()
def test_logits_of_no_step_to_five_are_the_published_ones(golden, published):
    logits = published.unroll(torch.from_numpy(golden["x"]), 5)
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-8)
    for steps in range(6):
        last = published(torch.from_numpy(golden["x"]), steps)
        np.testing.assert_allclose(last, golden["logits"][steps], rtol=0, atol=1e-8)


def test_the_decay_alone_is_the_published_one(golden):
    x, q, s = (torch.from_numpy(golden[f"decay/{key}"]) for key in "xQS")
    for t, expected in enumerate(golden["decay/y"]):
        value = decayed(x, t, q, s.abs(), float(golden["decay/tau"]))
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-8)


def test_with_the_published_scale_the_rotation_does_nothing():
    update = Published(6, tau=0.7, learn_scale=False).double()
    delta = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    for t in range(4):
        expected = delta * np.exp(-t / 0.7)
        torch.testing.assert_close(update(None, delta, t), expected, rtol=0, atol=1e-5)


def test_a_learned_scale_changes_the_weights_of_later_steps():
    update = Published(6, tau=0.7).double()
    with torch.no_grad():
        update.scale.copy_(torch.linspace(0.1, 2, 6))
    delta = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    assert (update(None, delta, 1) - delta * np.exp(-1 / 0.7)).abs().max() > 0.1


@pytest.mark.parametrize("wrong", [{"layers": (1, 1)}, {"feedback": 6}, {"tau": 0.0}])
def test_impossible_options_are_named(wrong):
    with pytest.raises(FeedbackAdapterError, match=next(iter(wrong))):
        reference(**wrong)
