"""Pixels whose labels are known: where marks are, what is lost and what holds."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.painting import Box, Line, fitted, pixels_of
from feedback_adapter.evidence.pixels import parse_click, parse_pixels
from feedback_adapter.outputs import Outputs
from feedback_adapter.testing import LABELS, check_evidence, tiny_outputs

ONE_OF = fa.Output(LABELS, "map")
ANY_OF = fa.Output(LABELS, "map", exclusive=False)
ALONE = fa.Output(["cat"], "map")
CLICKS = [[(1, 2, "cat"), (0, 0, "cat", 0)], None, [], [(5, 4, "cat", 0.3)]]
EVIDENCE = {
    "clicks": lambda: fa.Pixels(clicks=CLICKS),
    "boxes": lambda: fa.Pixels(boxes=[(0, 0, 2, 2, "cat")], confidence=0.5),
    "scribbles": lambda: fa.Pixels(
        scribbles=[([(0, 0), (10, 7)], "cat")], size=(10, 12), radius=1.5
    ),
    "labels": lambda: fa.Labels([{"cat": 1}, {"cat": 0}, None, {"cat": 0.3}]),
    "half": lambda: fa.Labels({"cat": 1}, confidence=0.5),
    "both": lambda: fa.Pixels(clicks=CLICKS) & fa.Labels({"cat": [1, None, None, 1]}),
    "both, the other way": lambda: fa.Labels({"cat": 1}) & fa.Pixels(clicks=CLICKS),
}


def outputs_of(spec, batch=4, size=(5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, len(spec.labels), *size)
    return Outputs({"output": torch.randn(shape, generator=generator).double()}, {"output": spec})


def bound(evidence, outputs):
    return evidence.bind(outputs.specs, outputs.batch)


@pytest.mark.parametrize("spec", [ONE_OF, ANY_OF, ALONE], ids=["one", "any", "alone"])
@pytest.mark.parametrize("name", EVIDENCE)
def test_conformance(name, spec):
    check_evidence(EVIDENCE[name](), outputs_of(spec))


def test_conformance_of_masks():
    outputs = tiny_outputs(kind="map")
    mask = torch.randint(0, 4, (4, 10, 12), generator=torch.Generator().manual_seed(0))
    mask[0] = 255
    check_evidence(fa.Pixels(mask), outputs)
    values = torch.rand(4, 4, 5, 6).masked_fill(torch.rand(4, 4, 5, 6) < 0.5, torch.nan)
    check_evidence(fa.Pixels(values), outputs_of(ANY_OF))


def test_a_mask_costs_its_cross_entropy():
    outputs = outputs_of(ONE_OF)
    mask = torch.randint(0, 4, (4, 5, 6), generator=torch.Generator().manual_seed(1))
    mask[1, 2:] = 255
    expected = F.cross_entropy(outputs["output"], mask, reduction="none", ignore_index=255)
    loss = fa.Pixels(mask, confidence=0.5).loss(outputs)
    assert torch.allclose(loss, 0.5 * expected.sum((1, 2)))


def test_independent_labels_cost_their_binary_cross_entropy():
    outputs = outputs_of(ANY_OF)
    told = fa.Pixels(clicks=[(1, 2, "cat"), (1, 2, "dog", 0), (3, 0, "snow", 0.25)])
    z = outputs["output"]
    bce = F.binary_cross_entropy_with_logits
    cat, dog, snow = z[:, 0, 2, 1], z[:, 1, 2, 1], z[:, 2, 0, 3]
    expected = F.softplus(-cat) + F.softplus(dog)
    expected = expected + bce(snow, torch.full_like(snow, 0.25), reduction="none")
    assert torch.allclose(told.loss(outputs), expected)


def test_known_pixels_hold_and_the_others_stay():
    outputs = outputs_of(ONE_OF)
    evidence = bound(fa.Pixels(boxes=[(1, 1, 3, 2, "dog")], clicks=[(2, 2, "snow")]), outputs)
    after, known = evidence.clamp(outputs), evidence.known(outputs)["output"]
    p = after.probabilities()["output"]
    assert known.sum((2, 3)).tolist() == [[0, 5, 1, 0]] * 4
    assert bool((p[known] > 1 - 1e-5).all())
    told = known.any(1, keepdim=True).expand_as(known)
    assert torch.equal(after["output"][~told], outputs["output"][~told])


def test_masks_of_photos_are_brought_to_the_maps_size():
    photo = torch.arange(4).reshape(2, 2).repeat_interleave(5, 0).repeat_interleave(6, 1)
    assert torch.equal(fitted(photo, (2, 2)), torch.arange(4).reshape(2, 2))
    assert torch.equal(fitted(fitted(photo, (20, 24)), (10, 12)), photo)
    known = fa.Pixels(photo).known(outputs_of(ONE_OF, size=(4, 4)))["output"]
    assert known.sum((2, 3)).tolist() == [[4] * 4] * 4


def test_where_marks_are():
    def at(mark, frame=(4, 6), size=(4, 6)):
        pixels = pixels_of(mark, frame, size)
        return sorted((int(p) % size[1], int(p) // size[1]) for p in pixels)

    assert at(Line(((5, 3),), 0)) == [(5, 3)]
    assert at(Line(((5, 3),), 0), size=(2, 3)) == [(2, 1)]
    assert at(Line(((5, 3),), 0), size=(8, 12)) == [(11, 7)]
    assert at(Line(((2, 1),), 0, radius=1)) == [(1, 1), (2, 0), (2, 1), (2, 2), (3, 1)]
    assert at(Line(((0, 0), (3, 3)), 0)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert at(Line(((0, 2), (5, 2)), 0, radius=0.5), size=(2, 3)) == [(0, 1), (1, 1), (2, 1)]
    assert at(Box(((1, 1), (2, 3)), 0)) == [(x, y) for x in (1, 2) for y in (1, 2, 3)]
    assert at(Box(((2, 3), (1, 1)), 0)) == at(Box(((1, 1), (2, 3)), 0))
    assert at(Box(((1, 1), (1, 1)), 0), size=(2, 3)) == [(0, 0)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.data())
def test_every_mark_in_the_picture_has_a_pixel(height, width, rows, columns, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    for mark in (Line(((x, y),), 0), Box(((x, y), (x, y)), 0), Line(((x, y), (0, 0)), 0)):
        pixels = pixels_of(mark, (height, width), (rows, columns))
        assert len(pixels) >= 1
        assert int(pixels.min()) >= 0
        assert int(pixels.max()) < rows * columns
    if (rows, columns) == (height, width):
        assert pixels_of(Line(((x, y),), 0), (height, width), (rows, columns)) == y * width + x


def test_a_label_is_somewhere_by_noisy_or():
    for spec in (ONE_OF, ANY_OF):
        outputs = outputs_of(spec)
        p = outputs.probabilities()["output"][:, 1].flatten(1)
        absent = (1 - p).prod(1)
        assert torch.allclose(fa.Labels({"dog": 0}).loss(outputs), -absent.log())
        assert torch.allclose(fa.Labels({"dog": 1}).loss(outputs), -(1 - absent).log())
        soft = -(0.3 * (1 - absent).log() + 0.7 * absent.log())
        assert torch.allclose(fa.Labels({"dog": 0.3}).loss(outputs), soft)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [-300.0, -80.0, -17.0, 0.0, 17.0, 300.0])
def test_somewhere_is_finite_where_probabilities_vanish(level, dtype):
    z = torch.full((1, 1, 30, 40), level, dtype=dtype, requires_grad=True)
    outputs = Outputs({"output": z}, {"output": ALONE})
    for value in (0, 1):
        loss = fa.Labels({"cat": value}).loss(outputs)
        (slope,) = torch.autograd.grad(loss.sum(), z)
        assert bool(loss.isfinite().all())
        assert bool(slope.isfinite().all())
    if level < -20:
        assert float(fa.Labels({"cat": 1}).loss(outputs).detach()) == pytest.approx(
            -level - math.log(1200)
        )


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("value", [0, 0.4, 1])
def test_somewhere_has_second_derivatives(label, value):
    """The strategy `newton` needs them, also of the first and of the last label."""
    outputs = outputs_of(ONE_OF, batch=2, size=(2, 3))
    evidence = bound(fa.Labels({label: value}), outputs)
    leaf = outputs["output"].requires_grad_()
    torch.autograd.gradgradcheck(lambda z: evidence.loss(outputs.replace(output=z)), leaf)


def test_what_is_somewhere_or_nowhere_holds():
    outputs = outputs_of(ONE_OF)
    outputs["output"][:, 3] -= 9
    after = fa.Labels({"ball": 1, "dog": 0}).clamp(outputs).probabilities()["output"]
    assert bool((after[:, 3].flatten(1).amax(1) > 1 - 1e-5).all())
    assert bool((after[:, 1].flatten(1).sum(1) < 1e-5).all())
    likely = fa.Labels({"ball": 1}).clamp(outputs.replace(output=outputs["output"] * 0.01))
    assert bool((likely["output"].argmax(1) == 3).flatten(1).any(1).all())  # seen at one pixel
    assert torch.allclose(after.sum(1), torch.ones(4, 5, 6).double())
    soft = fa.Labels({"ball": 1}, confidence=0.5).clamp(outputs).probabilities()["output"]
    plain = outputs.probabilities()["output"]
    present = 1 - (1 - plain[:, 3]).flatten(1).prod(1)
    expected = plain[:, 3] * (0.5 + 0.5 * present)[:, None, None] / present[:, None, None]
    assert torch.allclose(soft[:, 3], expected)


def test_a_label_is_put_where_pixels_allow_it():
    """The likeliest place of the cat is known to be a dog."""
    outputs = outputs_of(ONE_OF, batch=1)
    outputs["output"][0, 0, 2, 3] += 20
    told = fa.Labels({"cat": 1}) & fa.Pixels(clicks=[(3, 2, "dog")])
    for evidence in (told, fa.All(told.parts[::-1])):
        p = bound(evidence, outputs).clamp(outputs).probabilities()["output"][0]
        assert float(p[1, 2, 3]) > 1 - 1e-5
        assert float(p[0].amax()) > 1 - 1e-5


@pytest.mark.parametrize(
    "evidence",
    [
        fa.Labels({"cat": 0}) & fa.Pixels(clicks=[(1, 1, "cat")]),
        fa.Labels(dict.fromkeys(LABELS, 0)),
        fa.Labels({"cat": 1}) & fa.Pixels(boxes=[(0, 0, 5, 4, "dog")]),
        fa.Pixels(clicks=[(1, 1, "cat")]) & fa.Pixels(clicks=[(1, 1, "dog")]),
        fa.Pixels(clicks=[(1, 1, "cat"), (1, 1, "dog")]),
        fa.Pixels(clicks=[(1, 1, "cat"), (1, 1, "cat", 0)]),
        fa.Pixels(clicks=[(1, 1, name, 0) for name in LABELS]),
    ],
    ids=repr,
)
def test_contradictions(evidence):
    with pytest.raises(EvidenceError, match="Contradiction"):
        bound(evidence, outputs_of(ONE_OF)).clamp(outputs_of(ONE_OF))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fa.Pixels(), "needs a mask, clicks"),
        (lambda: fa.Pixels(clicks=(3, 4, "cat")), r"list of \(x, y, label\)"),
        (lambda: fa.Pixels(clicks=[[(3, "cat")]]), "The list of clicks of image 0"),
        (lambda: fa.Pixels(clicks=[(3, 4, "cat", 2)]), "it must be a number from 0"),
        (lambda: fa.Pixels(clicks=[(3, math.nan, "cat")]), "list of"),
        (lambda: fa.Pixels(clicks=[(3, 4, "cart")]), "cat"),
        (lambda: fa.Pixels(clicks=[(3, 4, "cat")], radius=-1), "radius"),
        (lambda: fa.Pixels(clicks=[(3, 4, "cat")], size=(0, 4)), "whole numbers from 1"),
        (lambda: fa.Pixels(clicks=[(3, 4, "cat")], confidence=2), "confidence"),
        (lambda: fa.Pixels(clicks=[(3, 4, "cat")], output="other"), "no output 'other'"),
        (lambda: fa.Pixels(clicks=[[(3, 4, "cat")]]), "for 1 images, but the batch has 4"),
        (lambda: fa.Pixels(clicks=[(6, 4, "cat")]), r"outside of the picture.*6 wide and 5 high"),
        (lambda: fa.Pixels(scribbles=[([], "cat")]), "scribbles"),
        (lambda: fa.Pixels(boxes=[(0, 0, 9, 9, "cat")]), "size="),
        (lambda: fa.Pixels(torch.full((5, 6), 4)), "number of a label, from 0 to 3, or ignore=255"),
        (lambda: fa.Pixels(torch.full((5, 6), 0.5)), "number of a label"),
        (lambda: fa.Pixels("mask.png"), "makes no tensor"),
        (lambda: fa.Pixels(torch.zeros(4, 3, 5, 6)), r"is \(3, 5, 6\), but 4 labels"),
        (lambda: fa.Labels({"cat": 1}, wrong=0.1), "is a map"),
    ],
)
def test_mistakes_are_named(make, message):
    outputs = outputs_of(ONE_OF)
    with pytest.raises(EvidenceError, match=message):
        bound(make(), outputs).loss(outputs)


def test_only_maps_have_pixels():
    with pytest.raises(EvidenceError, match="kind='map'"):
        bound(fa.Pixels(clicks=[(0, 0, "cat")]), tiny_outputs())


def test_clicks_of_the_command_line():
    assert parse_click("120,90=car") == (120, 90, "car", 1)
    assert parse_click("1.5, 2=-hot dog") == (1.5, 2, "hot dog", 0)
    assert parse_pixels("1,2=cat;3,4=-dog").clicks == [(1, 2, "cat", 1), (3, 4, "dog", 0)]
    for text in ("car", "1=car", "1,2", "1,2=", "1,2,3=car", "a,b=car"):
        with pytest.raises(EvidenceError, match="120,90=car"):
            parse_click(text)
