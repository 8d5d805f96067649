"""Models that label pixels: outputs, refinement, and what results say of masks."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import feedback_adapter as fa
from feedback_adapter.errors import ModelError
from feedback_adapter.maps import run_lengths
from feedback_adapter.plugins import strategy as strategy_called
from feedback_adapter.testing import (
    LABELS,
    check_strategy,
    tiny_adapter,
    tiny_images,
    untouched,
)

TOLD = fa.Pixels(clicks=[[(1, 2, "dog"), (6, 6, "cat")], [(3, 3, "dog")], None, [(0, 0, "ball")]])


def test_what_labels_of_pixels_are():
    assert fa.Output(["a", "b"], "map").one_holds
    assert not fa.Output(["a"], "map").one_holds
    assert not fa.Output(["a", "b"], "map", exclusive=False).one_holds
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    one, some = fa.Output(list("abc"), "map"), fa.Output(list("abc"), "map", exclusive=False)
    assert torch.equal(one.probabilities(z), z.softmax(1))
    assert torch.equal(some.probabilities(z), z.sigmoid())
    assert torch.allclose(one.log_odds(z), z.softmax(1).logit())
    assert torch.equal(some.log_odds(z), z)
    assert one.blank(2).shape == (2, 3, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], "map", {"exclusive": True}), "each pixel would have it"),
        ((["a"], "multiclass", {}), "would always be 1"),
        ((["a", "b"], "multiclass", {"exclusive": True}), "is for kind='map'"),
        ((["a", "b"], "map", {"exclusive": 3}), "True or False"),
    ],
)
def test_what_labels_of_pixels_cant_be(arguments, message):
    labels, kind, more = arguments
    with pytest.raises(ModelError, match=message):
        fa.Output(labels, kind, **more)


def test_other_shapes_are_refused():
    with pytest.raises(ModelError, match="say kind='map'"):
        fa.wrap(tiny_adapter("map").model, labels=LABELS).predict(tiny_images())
    with pytest.raises(ModelError, match=r"need \(batch, 4, height, width\)"):
        fa.wrap(tiny_adapter().model, labels=LABELS, kind="map").predict(tiny_images())


@pytest.mark.parametrize("strategy", ["residual", "newton", "layerwise"])
def test_known_pixels_move_the_others(strategy):
    adapter, images = tiny_adapter("map"), tiny_images(4)
    with untouched(adapter.model):
        result = adapter.refine(images, TOLD, strategy=strategy, pivots="block")
    assert result.after.shape == result.before.shape == (4, 4, 8, 8)
    assert torch.equal(result.before, adapter.predict(images))
    assert bool(result.improved[[0, 1, 3]].all())
    assert torch.equal(result.after[2], result.before[2])
    unknown = ~result.known["output"].any(1)
    moved = (result.after - result.before).abs().amax(1)
    assert float((moved[0][unknown[0]] > 1e-4).float().mean()) > 0.9  # the corner sees none of them
    rows = torch.tensor([3])
    alone = adapter.refine(images[rows], TOLD.take(rows), strategy=strategy, pivots="block")
    assert torch.allclose(alone.after[0], result.after[3], atol=1e-5)


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("name", ["residual", "newton", "layerwise", "clamp"])
def test_strategies_keep_their_promises_on_maps(name, pixels):
    def some(batch):
        clicks = [[(i % 8, 3, "dog"), (5, i % 8, "snow", 0)] for i in range(batch)]
        return fa.Pixels(clicks=[None if i % 3 == 2 else clicks[i] for i in range(batch)])

    evidence = some if pixels else None  # by default labels, which are somewhere or nowhere
    spec, adapter = strategy_called(name), tiny_adapter("map")
    check_strategy(spec, adapter=adapter, evidence=evidence, atol=5e-5)  # sums of 64 pixels


def test_newton_computes_with_the_known_pixels_only():
    """And gets what it would get with all of them."""
    adapter, images = tiny_adapter("map"), tiny_images(4)
    both = TOLD & fa.Labels({"snow": [1, None, None, 0]})
    bound = both.bind(adapter.outputs, 4)
    outputs = adapter.unrefined(images)
    assert [tuple(v.shape) for v in bound.read(outputs).values()] == [(4, 4, 2), (4, 4, 8, 8)]
    result = adapter.refine(images, both, strategy="newton", pivots="block")
    whole = adapter.refine(images, Whole(bound), strategy="newton", pivots="block")
    assert torch.allclose(whole.after, result.after, atol=1e-5)
    assert torch.allclose(whole.losses, result.losses, atol=1e-5)


class Whole(fa.Evidence):
    """Evidence whose loss reads whole maps."""

    def __init__(self, told):
        self.told = told

    def loss(self, outputs):
        return self.told.loss(outputs)

    def clamp(self, outputs):
        return self.told.clamp(outputs)

    def known(self, outputs):
        return self.told.known(outputs)

    def take(self, rows):
        return Whole(self.told.take(rows))


def test_labels_and_pixels_together():
    told = fa.Pixels(clicks=[(1, 2, "dog")]) & fa.Labels({"snow": 1, "ball": 0})
    result = tiny_adapter("map").refine(tiny_images(4), told)
    assert bool((result.loss < result.losses[0]).all())
    prepared = tiny_adapter("map")
    ready = prepared.prepare(tiny_images(4))
    assert torch.equal(prepared.refine(ready, told).after, result.after)


def test_a_batch_without_images_and_images_of_which_nothing_is_known():
    adapter = tiny_adapter("map")
    assert adapter.refine(tiny_images(0), fa.Pixels(clicks=[])).after.shape == (0, 4, 0, 0)
    for nothing in (fa.Pixels(clicks=[]), fa.Labels({})):
        result = adapter.refine(tiny_images(2), nothing)
        assert torch.equal(result.after, result.before)


def test_shares_of_pixels():
    told = TOLD & fa.Labels([{"snow": 1, "ball": 0}, {"ball": 0}, None, None])
    result = tiny_adapter("map").refine(tiny_images(4), told)
    rows = {row.label: row for row in result.changes(0)}
    seen = result.before[0].argmax(0)
    for number, label in enumerate(LABELS):
        assert rows[label].before == pytest.approx(float((seen == number).float().mean()))
    assert sum(row.after for row in rows.values()) == pytest.approx(1)
    said = {label: row.said for label, row in rows.items()}
    assert said == {
        "cat": "1 pixel known", "dog": "1 pixel known", "snow": "known", "ball": "known absent",
    }  # fmt: skip
    assert [row.said for row in result.changes(2)] == [""] * 4
    assert "1 pixel known" in result.table(image=0)


@pytest.mark.parametrize("photo", [True, False])
@pytest.mark.parametrize("length", [1, 60])
def test_no_label_of_a_picture_is_cut_off(photo, length, tmp_path):
    labels = [f"{label:_<{length}}" for label in LABELS]
    adapter = fa.wrap(tiny_adapter("map").model, labels=labels, kind="map")
    images = tiny_images(1)
    result = adapter.refine(images, fa.Pixels(clicks=[(x, x, labels[x]) for x in range(4)]))
    result = dataclasses.replace(result, images=torch.rand(1, 3, 8, 8) if photo else None)
    picture = np.asarray(Image.open(result.plot(tmp_path / "p.png", title=" ")).convert("RGB"))
    assert (picture[:, [0, 1, -2, -1]] == 255).all()


def test_masks_in_the_dictionary():
    result = tiny_adapter("map").refine(tiny_images(4), TOLD)
    for image, described in enumerate(result.to_dict()["images"]):
        masks = described["masks"]["output"]
        for moment, logits in (("before", result.before), ("after", result.after)):
            seen = logits[image].argmax(0)
            found = torch.full((8, 8), -1)
            for label, mask in masks.items():
                found[_mask(mask[moment])] = LABELS.index(label)
            assert torch.equal(found, seen)
    assert "masks" not in tiny_adapter().refine(tiny_images(1), fa.Labels({"cat": 1})).to_json()


def _mask(run):
    """Run lengths as a mask, as COCO's tools read them."""
    flat = [bool(i % 2) for i, count in enumerate(run["counts"]) for _ in range(count)]
    height, width = run["size"]
    return torch.tensor(flat).reshape(width, height).T


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_run_lengths_tell_the_mask(height, width, data):
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = torch.tensor(bits).reshape(height, width)
    run = run_lengths(mask)
    assert run["size"] == [height, width]
    assert all(count > 0 for count in run["counts"][1:])
    assert torch.equal(_mask(run), mask)


def test_results_are_joined_and_taken_apart():
    adapter, images = tiny_adapter("map"), tiny_images(4)
    whole = adapter.refine(images, TOLD, pivots="block")
    parts = [
        adapter.refine(images[rows], TOLD.take(rows), pivots="block")
        for rows in torch.arange(4).split(2)
    ]
    joined = fa.Refinement.cat(parts)
    assert torch.allclose(joined.after, whole.after, atol=1e-5)
    assert torch.equal(joined.known["output"], whole.known["output"])
    assert torch.equal(whole.take(torch.tensor([3])).after, whole.after[3:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "fcn_resnet50"]
)
def test_segmentation_models_of_torchvision(name):
    """Random weights, with batch norms that have seen random images: else only biases are left."""
    models = pytest.importorskip("torchvision.models.segmentation")
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None, weights_backbone=None, num_classes=4)
    images = tiny_images(4, size=64)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    adapter = fa.wrap(model.eval(), outputs={"mask": fa.Output(LABELS, "map", select="out")})
    told = fa.Pixels(clicks=[[(10, 12, "dog"), (40, 50, "snow")], [(60, 3, "cat")]])
    both = told & fa.Labels({"ball": 0})
    with untouched(copy.deepcopy(model)), untouched(model):
        prepared = adapter.prepare(images[:2])
        for strategy in ("residual", "newton"):
            for evidence in (told, both):
                result = adapter.refine(prepared, evidence, strategy=strategy)
                assert result.after["mask"].shape == (2, 4, 64, 64)
                assert bool((result.loss < 0.9 * result.losses[0]).all())
                moved = (result.after["mask"] - result.before["mask"]).abs().amax((1, 2, 3))
                assert bool((moved > 1e-3).all())
