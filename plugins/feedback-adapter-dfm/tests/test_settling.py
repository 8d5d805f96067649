"""The shipped networks settle: they move less with every look, and more looks change little."""

import json
import sys
from pathlib import Path

import pytest
import torch

import feedback_adapter as fa

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "benchmarks"))

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
    images, facts = binary.prepare(scenes, sigma, small.TOLD[pairs][told], 51)
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


@pytest.mark.parametrize("table", ["triangles", "clicks", "camvid"])
def test_the_tables_say_the_same(table):
    """In every row where what is known, or a single triangle, leaves one answer."""
    rows = json.loads((HERE / "results" / f"{table}.json").read_text())["rows"]
    found = {(row["method"], row["condition"], row["metric"]): row["value"] for row in rows}
    looks = 8 if table == "camvid" else 12
    compared = 0
    for (method, condition, metric), value in found.items():
        more = found.get((f"{method}, {looks} looks", condition, metric))
        if method == "loop" and more is not None and "nothing known" not in condition:
            assert abs(more - value) <= 0.5, condition
            compared += 1
    assert compared >= 2
