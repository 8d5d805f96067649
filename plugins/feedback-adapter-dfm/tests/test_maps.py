"""Networks that label pixels: known pixels enter the loop, and clicks do what was measured."""

import sys
from pathlib import Path

import pytest
import torch

import fa_dfm
import feedback_adapter as fa
from fa_dfm.nets import SmallView
from fa_dfm.strategy import DFMOptions, DFMStrategy, known_of
from feedback_adapter.testing import check_strategy

RECIPES = str(Path(__file__).parents[1] / "recipes")


@pytest.fixture(scope="module")
def shapes():
    """The recipe that draws triangles."""
    sys.path.insert(0, RECIPES)
    try:
        import shapes

        return shapes
    finally:
        sys.path.remove(RECIPES)


def network(labels, kind):
    torch.manual_seed(0)
    net = fa_dfm.convert(
        SmallView(labels, channels=3, width=8), kind=kind, steps=3, hidden=2, image_size=(16, 16)
    )
    with torch.no_grad():  # what is known pulls its own label up, as training makes it
        for parameter in net.feedback.parameters():
            parameter.normal_(0, 0.3)
    return net.eval()


@pytest.mark.parametrize("exclusive", [True, False])
def test_known_pixels_enter_as_they_are(exclusive):
    net = network(3, "multiclass" if exclusive else "multilabel")
    spec = fa.Output(("a", "b", "c"), "map", exclusive=exclusive)
    adapter = fa.wrap(net, outputs={"mask": spec})
    images = torch.rand(2, 3, 16, 16)
    clicks = [[(3, 5, "b"), (9, 2, "c")], [(0, 15, "a")]]
    bound = fa.Pixels(clicks=clicks, confidence=0.5).bind(adapter.outputs, 2)
    known = known_of(bound, adapter.unrefined(images), "mask", net)
    mask = torch.full((2, 16, 16), -1)
    mask[0, 5, 3], mask[0, 2, 9], mask[1, 15, 0] = 1, 2, 0
    expected = fa_dfm.Known.from_mask(mask, 3, 0.5)
    assert (known.weight > 0).sum() == 3
    told = (mask >= 0).unsqueeze(1).expand_as(expected.target) & (expected.target > 0)
    assert torch.allclose(known.target[told], torch.ones(3), atol=1e-4)
    assert torch.allclose(known.weight.amax(1, keepdim=True), expected.weight, atol=1e-4)


def scenes(shapes, count):
    """Images of two triangles with noise .5, the mask that is meant, and a click in each."""
    generator = torch.Generator().manual_seed(7)
    white, meant = shapes.two_triangles(count, 48, generator)
    images = (shapes.noisy(white, torch.full((count,), 0.5), generator) - 0.5) * 4
    clicks = []
    for mask in meant[:, 0]:
        places = mask.nonzero()
        y, x = places[len(places) // 2].tolist()
        clicks.append([(x, y, "triangle")])
    return images, meant, clicks


def test_the_strategy_keeps_its_promises_on_maps(shapes):
    pytest.importorskip("feedback_adapter_zoo")
    images, _, clicks = scenes(shapes, 8)

    def some(batch):
        return fa.Pixels(clicks=[None if i % 3 == 2 else clicks[i] for i in range(batch)])

    adapter = fa.load("triangles-clicks-dfm")
    check_strategy(
        DFMStrategy, DFMOptions(), adapter=adapter, images=images, evidence=some, pivots="input"
    )


@pytest.mark.parametrize(
    ("name", "least"), [("triangles-clicks-dfm", 30), ("triangles-clicks-feedforward", 8)]
)
def test_a_click_says_which_triangle_is_meant(shapes, name, least):
    """Foreground IoU of the other pixels, in points; 64 scenes with noise .5, threshold 0."""
    pytest.importorskip("feedback_adapter_zoo")
    adapter = fa.load(name)
    images, meant, clicks = scenes(shapes, 64)
    told = fa.Pixels(clicks=clicks)
    result = adapter.refine(images, told)
    assert result.strategy == "dfm"
    unknown = ~result.known["output"]

    def iou(logits):
        found, wanted = (logits > 0) & unknown, (meant > 0) & unknown
        overlap, union = (found & wanted).flatten(1).sum(1), (found | wanted).flatten(1).sum(1)
        return float((overlap / union.clamp(min=1)).mean() * 100)

    assert iou(result.after) - iou(result.before) > least
