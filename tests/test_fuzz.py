"""Whatever is passed as options or to describe a model: a right result, or one named error."""

import dataclasses
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import feedback_adapter as fa
from feedback_adapter.testing import LABELS, tiny_adapter, tiny_images, untouched

IMAGES = tiny_images(2)
PHOTO = Image.new("RGB", (8, 6), (10, 200, 30))
TOLD = fa.Labels({"cat": 1, "snow": 0})
HUGE = st.sampled_from([10**400, -(10**400), 1e308, math.inf, -math.inf, math.nan, 5e-324, 1e-320])
NUMBERS = st.sampled_from([0, 1, 2, 3, -1, True, 0.3, 1.0, -0.0, Fraction(1, 2), Decimal("0.5")])
NUMPY = st.sampled_from([np.int64(3), np.float32(0.5), np.bool_(True), np.float64("nan")])
ODD = st.sampled_from(
    [None, b"x", object(), 1j, type, len, {"a"}, range(2), {}, [], (), [[]], {"x": {}}, Ellipsis,
     torch.zeros(2, device="meta"), torch.zeros(3).to_sparse(), torch.ones(2, 2), torch.tensor(2),
     np.array(["rms", "x"]), np.array(0.5), np.zeros((3, 4)), np.array([], dtype=bool), nn.ReLU(),
     nn.Linear(1, 1), memoryview(b"abc"), iter([1, 0]), fa.Adam, fa.Adam(), fa.NewtonOptions()]
)  # fmt: skip
WORDS = st.sampled_from(
    ["", "rms", "adam", "lbfgs", "best", "mean", "stem", "input", "auto", "block#9", "stem:x",
     "stem#0", "newton", "residual", "posterior", "clamp", "ball", "multiclass", "map", "tokens",
     "0", "\0", "\ud800", "🐶" * 999, "../x", "bicubic", "train"]
)  # fmt: skip
THINGS = NUMBERS | HUGE | NUMPY | ODD | WORDS
LISTS = st.lists(THINGS, max_size=4)
ANY = THINGS | LISTS | st.dictionaries(WORDS | st.none(), THINGS, max_size=2)


def quick(examples):
    return settings(
        max_examples=examples, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def mostly(right):
    """Three times of four what is right, or near it, else anything."""
    return st.integers(0, 3).flatmap(lambda which: right if which else ANY)


def some(**more):
    """Some of the arguments by name, each right or wrong."""
    return st.fixed_dictionaries({}, optional={name: mostly(r) for name, r in more.items()})


def is_one_error(error):
    assert 10 < len(str(error)) < 2000, str(error)


def is_right(result, adapter, images):
    assert result.losses.isfinite().all()
    plain = adapter.unrefined(images)
    for name, value in result.outputs_after.items():
        assert value.isfinite().all()
        torch.testing.assert_close(result.outputs_before[name], plain[name])


# ---- options ----

NAMES = sorted(
    {
        field.name
        for kind in (fa.NewtonOptions, fa.ResidualOptions, fa.LayerwiseOptions, fa.PosteriorOptions)
        for field in dataclasses.fields(kind)
    }
)
PIVOTS = st.sampled_from(["auto", "stem", "block", "again#1", ["stem", "block"], fa.Site("block")])


@pytest.mark.filterwarnings("ignore:The option reach")
@pytest.mark.parametrize("named", ["newton", "residual", "layerwise", "posterior", "clamp", None])
def test_options(named):
    adapter = tiny_adapter()
    adapter.fit_prior(torch.rand(9, 4), torch.eye(4).repeat(3, 1)[:9])
    values = st.dictionaries(st.sampled_from(NAMES) | WORDS, ANY | NUMBERS, max_size=2)

    @quick(30)
    @given(values, some(pivots=PIVOTS, strategy=st.just("newton"), options=st.none()))
    def fuzz(overrides, more):
        steps = overrides.get("steps")
        if isinstance(steps, int) and 3 < steps <= 10**6:
            return  # possible, and takes its time
        more = {"strategy": named, **more}
        with untouched(adapter.model):
            try:
                result = adapter.refine(IMAGES, TOLD, **{**overrides, **more})
            except fa.FeedbackAdapterError as error:
                is_one_error(error)
                return
        is_right(result, adapter, IMAGES)

    fuzz()


SOLVERS = st.sampled_from([fa.SGD, fa.Adam, fa.LBFGS])
RATES = st.sampled_from([(0.9, 0.99), [0, 0.5]])


@quick(60)
@given(SOLVERS, some(momentum=st.just(0.5), betas=RATES, eps=st.just(1e-8), history=st.just(2)))
def test_solvers(kind, more):
    possible = {field.name for field in dataclasses.fields(kind)}
    more = {name: value for name, value in more.items() if name in possible}
    adapter = tiny_adapter()
    try:
        result = adapter.refine(IMAGES, TOLD, strategy="residual", solver=kind(**more), steps=2)
    except fa.FeedbackAdapterError as error:
        is_one_error(error)
    else:
        is_right(result, adapter, IMAGES)


# ---- wrap ----


class Returns(nn.Module):
    """A model that returns something made of logits."""

    def __init__(self, make):
        super().__init__()
        self.net, self.make = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), make

    def forward(self, x):
        return self.make(self.net(x))


MAKES = st.sampled_from(
    [lambda z: z, lambda z: (z, z), lambda z: {"a": z, "b": [z]}, lambda z: None, lambda z: 3,
     lambda z: z[:, :2], lambda z: z[0], lambda z: z.sum(), lambda z: z.long(), lambda z: "text",
     lambda z: z[:, :, None, None], lambda z: z.to_sparse(), lambda z: z / 0, lambda z: z.sigmoid(),
     lambda z: z.softmax(1), lambda z: z.double(), lambda z: z.detach(), lambda z: [], lambda z: {},
     lambda z: z.bfloat16(), lambda z: torch.complex(z, z), lambda z: z[:0], lambda z: z.numpy()]
)  # fmt: skip
KINDS = st.sampled_from(["multilabel", "multiclass", "map", "tokens"])
SELECTS = st.sampled_from([None, "0", "a", "b.0", "a.b", "real", "__class__"])
OUTPUTS = st.builds(
    lambda **given: ("Output", given),
    labels=mostly(st.just(list(LABELS))), kind=mostly(KINDS), select=mostly(SELECTS),
    hierarchy=mostly(st.none()), exclusive=mostly(st.none()),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@quick(150)
@given(
    mostly(st.builds(Returns, MAKES)),
    some(labels=st.just(list(LABELS)), kind=KINDS, transform=st.just(fa.Transform())),
    mostly(st.none() | st.dictionaries(WORDS, OUTPUTS, max_size=2)),
)
def test_wrap(model, more, outputs):
    told = fa.Labels({LABELS[0]: 1})
    try:
        if isinstance(outputs, dict):
            outputs = {
                name: fa.Output(**made[1]) if isinstance(made, tuple) and made else made
                for name, made in outputs.items()
            }
        if "labels" not in more and outputs is None:
            more = {"labels": LABELS, **more}
        adapter = fa.wrap(model, outputs=outputs, **more)
        with untouched(adapter.model):
            result = adapter.refine(IMAGES, told, steps=1)
    except fa.FeedbackAdapterError as error:
        is_one_error(error)
    else:
        is_right(result, adapter, IMAGES)


# ---- Transform ----

TRIPLES = st.sampled_from([(0.5, 0.5, 0.5), [0, 0.1, 1], (1, 2, 3)])


@quick(150)
@given(
    some(
        size=st.sampled_from([(4, 6), [5, 5], (np.int64(3), 3)]),
        interpolation=st.sampled_from(["bicubic", "nearest"]), mean=TRIPLES, std=TRIPLES,
    )
)  # fmt: skip
def test_transform(more):
    try:
        transform = fa.Transform(**more)
    except fa.FeedbackAdapterError as error:
        is_one_error(error)
        return
    image = transform(PHOTO)
    assert image.shape == (3, *transform.size)
    assert image.isfinite().all()
    assert ((transform.picture(image[None]) >= 0) & (transform.picture(image[None]) <= 1)).all()


# ---- fit_prior ----

TENSORS = st.sampled_from(
    [torch.rand(9, 4), torch.rand(9, 4).round(), torch.rand(9, 4).double(), torch.zeros(9, 4),
     torch.ones(9, 4, dtype=torch.int64), torch.zeros(9, 4, dtype=torch.bool), torch.rand(9, 3),
     torch.rand(9), torch.rand(1, 4), torch.rand(0, 4), torch.rand(9, 0), torch.rand(9, 4, 1),
     torch.randn(9, 4), torch.full((9, 4), torch.nan), torch.full((9, 4), torch.inf),
     torch.rand(9, 4).half(), torch.rand(9, 4).to_sparse(), torch.rand(9, 4, device="meta"),
     torch.rand(9, 4).numpy(), [[0, 1, 0, 1]] * 9, torch.full((9, 4), 1e30), torch.tensor(1j)]
)  # fmt: skip


@quick(100)
@given(mostly(TENSORS), mostly(TENSORS), some(held_out=TENSORS, output=st.sampled_from(["output"])))
def test_fit_prior(probabilities, targets, more):
    adapter = tiny_adapter()
    try:
        prior = adapter.fit_prior(probabilities, targets, **more)
    except fa.FeedbackAdapterError as error:
        is_one_error(error)
        assert adapter.priors == {}
        return
    for tensor in (prior.mean, prior.covariance, prior.couplings):
        assert tensor.isfinite().all()
    is_right(adapter.refine(IMAGES, TOLD, strategy="posterior"), adapter, IMAGES)


# ---- choose_pivots ----

HIDES = {
    "strategy": st.sampled_from(["residual", "layerwise"]), "pivots": PIVOTS,
    "steps": st.just(1), "step_sizes": st.sampled_from([[0.1], (0.1, 0.2)]),
    "hide": st.just(0.5), "criterion": st.just("likelihood"), "batch": st.just(2),
    "tolerance": st.just(1.0), "seed": st.just(3), "solver": st.just("adam"),
}  # fmt: skip


@quick(40)
@given(some(**HIDES))
def test_choose_pivots(more):
    adapter = tiny_adapter()
    told = fa.Labels([{"cat": 1, "dog": 0}, {"cat": 0, "dog": 1, "snow": 1}])
    fast = {"pivots": ["stem"], "steps": 1, "step_sizes": [0.1]}
    with untouched(adapter.model):
        try:
            choice = adapter.choose_pivots(IMAGES, told, **{**fast, **more})
            result = adapter.refine(IMAGES, told, **choice.arguments)
        except fa.FeedbackAdapterError as error:
            is_one_error(error)
            return
    assert math.isfinite(choice.chosen.gain)
    is_right(result, adapter, IMAGES)


@pytest.mark.parametrize(
    "more",
    [
        {"strategy": np.array(["rms", "x"])}, {"strategy": ["newton"]}, {"strategy": torch.ones(2)},
        {"pivots": np.array(0.5)}, {"pivots": torch.tensor(2)}, {"pivots": {"stem": 1, 2: 3}},
        {"options": np.zeros((3, 4))}, {"steps": 1, "step_sizes": 1}, {"trace": "no"},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_search_found(more):
    adapter = tiny_adapter()
    with untouched(adapter.model), pytest.raises(fa.FeedbackAdapterError) as caught:
        adapter.refine(IMAGES, TOLD, **more)
    is_one_error(caught.value)
