"""The shipped networks settle: they move less with every look, and more looks change little."""

import sys
from pathlib import Path

import pytest
import torch

import feedback_adapter as fa

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

pytest.importorskip("feedback_adapter_zoo")
binary = pytest.importorskip("binary")
small = pytest.importorskip("small")
triangle_task = pytest.importorskip("triangle_task")

KNOWN = ", 1% of pixels known"
SINGLE = [("triangles-dfm", *case) for case in ((1, ""), (2, ""), (3, ""), (2, KNOWN))]
PAIRS = [("triangles-clicks-dfm", sigma, ", one click") for sigma in (0.5, 1)]


@torch.no_grad()
@pytest.mark.parametrize(("name", "sigma", "told"), [*SINGLE, *PAIRS])
def test_twice_as_many_looks_change_little(name, sigma, told):
    net, pairs = fa.load(name).model, name == "triangles-clicks-dfm"
    scenes = triangle_task.masks(triangle_task.Task(pairs=pairs), 200, 7, "cpu")
    images, facts = binary._prepare(scenes, sigma, small.TOLD[pairs][told], 51)
    unroll = net.unroll(images, facts, steps=2 * net.steps)
    changes = unroll.changes.mean(1)
    assert (changes[1:] < changes[:-1]).all()
    looks = (net.steps, 2 * net.steps)
    once, twice = (binary.iou(unroll.logits[t - 1], scenes.meant, facts, 0.0) for t in looks)
    assert abs(once - twice) <= 0.5


@torch.no_grad()
def test_a_street_scene_settles():
    data = pytest.importorskip("skimage.data")
    adapter = fa.load("camvid-dfm")
    images = adapter.transform.open(data.stereo_motorcycle()[0])
    changes = adapter.model.unroll(images, steps=8).changes[:, 0]
    assert (changes[1:] < changes[:-1]).all()
