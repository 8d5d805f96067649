"""Whatever is passed as evidence: one named error, or a right result, and the same model."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import feedback_adapter as fa
from feedback_adapter.testing import LABELS, tiny_adapter, tiny_images, untouched

pytest.importorskip("simplemma")
QUICK = settings(
    max_examples=120, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
IMAGES = tiny_images(3)
ADAPTERS = [tiny_adapter(), tiny_adapter("multiclass"), tiny_adapter(second="multiclass")]
PETS = {"pet": ["cat", "dog"], "thing": ["ball", "snow"]}

HUGE = st.sampled_from([10**400, -(10**400), 1e308, math.inf, -math.inf, math.nan, 5e-324])
NUMBERS = st.sampled_from([0, 1, True, False, 0.3, 1.0, -0.0, 2, Fraction(1, 2), Decimal("0.5")])
ODD = st.sampled_from(
    [None, b"dog", object(), 1j, type, len, {"a"}, set(), range(2), {}, [], (), [[]], {"x": {}},
     torch.zeros(2, device="meta"), torch.zeros(3).to_sparse(), torch.ones(3, 1), torch.tensor(1j),
     np.array([1, None, 0]), np.array(["1", "0", ""]), np.array(0.5), np.array("dog"),
     np.array([0.5, math.nan, 1]), np.zeros((3, 4)), np.array([], dtype=bool), np.datetime64("NaT"),
     torch.nn.Linear(1, 1), memoryview(b"abc"), iter([1, 0, 1]), Ellipsis]
)  # fmt: skip
TEXTS = st.text(max_size=12) | st.sampled_from(["", "a dog", "no dog", "\0", "\ud800", "🐶" * 999])
NAMES = st.sampled_from([*LABELS, "Dogs", "CAT_", "pet", "thing", "output", "scene"]) | TEXTS
KEYS = NAMES | st.sampled_from([0, None, 1.5, ("dog",), b"dog", math.nan, True])
THINGS = NUMBERS | HUGE | ODD | TEXTS
LISTS = st.lists(THINGS, max_size=4) | st.lists(NUMBERS | st.none(), min_size=3, max_size=3)
VALUES = NUMBERS | THINGS | LISTS
ROWS = st.dictionaries(st.sampled_from(LABELS) | KEYS, VALUES, max_size=3)
FEW = st.none() | NAMES | THINGS


def arguments(**more):
    """Some of the arguments by name, each right or wrong."""
    return st.fixed_dictionaries({}, optional=more | {"output": st.just("output") | FEW})


def labels():
    values = ROWS | st.lists(ROWS | st.none(), max_size=4) | THINGS
    confidence = NUMBERS | THINGS | st.dictionaries(KEYS, VALUES, max_size=2)
    wrong = NUMBERS | THINGS
    return st.tuples(st.just(fa.Labels), values, arguments(confidence=confidence, wrong=wrong))


def tensors():
    grid = st.lists(st.lists(NUMBERS | HUGE, min_size=4, max_size=4), min_size=3, max_size=3)
    known = st.lists(st.booleans(), min_size=4, max_size=4) | grid | THINGS | LISTS
    return st.tuples(st.just(fa.Labels.from_tensors), grid | THINGS | LISTS, arguments(known=known))


def coarse():
    name = st.sampled_from(["pet", "things"]) | NAMES | st.tuples(NAMES, NAMES)
    groups = st.just(PETS) | st.dictionaries(KEYS, LISTS | THINGS, max_size=2) | THINGS
    more = arguments(
        hierarchy=groups, through=st.sampled_from(["classes", "head", "both"]) | THINGS,
        confidence=NUMBERS | THINGS,
    )  # fmt: skip
    return st.tuples(st.just(fa.Coarse), name | st.lists(name | THINGS, max_size=4) | THINGS, more)


def texts():
    several = st.lists(TEXTS | st.none(), min_size=3, max_size=3) | LISTS
    more = arguments(
        absent=NUMBERS | THINGS, confidence=NUMBERS | THINGS,
        reliability=THINGS | st.builds(fa.Reliability, st.just(0.5), st.just(0.1)),
    )  # fmt: skip
    made = st.sampled_from([fa.Text, fa.Captions])
    return st.tuples(made, TEXTS | several | THINGS, more)


def _make(said):
    kind, value, more = said
    if kind is fa.Captions:
        more = {name: more[name] for name in more if name in ("confidence", "output")}
    return kind(value, **more)


def _is_short(error):
    assert 10 < len(str(error)) < 1500


@pytest.mark.parametrize("kind", [labels, tensors, coarse, texts])
def test_right_or_one_named_error(kind):
    @QUICK
    @given(kind(), st.none() | kind() | labels() | coarse(), st.sampled_from(ADAPTERS))
    def fuzz(said, more, adapter):
        with untouched(adapter.model):
            try:
                evidence = _make(said) if more is None else _make(said) & _make(more)
                result = adapter.refine(IMAGES, evidence, strategy="residual", steps=1)
            except fa.FeedbackAdapterError as error:
                _is_short(error)
                return
        plain = adapter.unrefined(IMAGES)
        assert result.losses.isfinite().all()
        for name, value in result.outputs_after.items():
            assert value.isfinite().all()
            assert result.known[name].shape == value.shape
            torch.testing.assert_close(result.outputs_before[name], plain[name])
        bound = evidence.bind(adapter.outputs, 3)
        for fact in bound.certain():
            p = bound.clamp(plain).probabilities()[fact.output]
            sure = torch.eq(fact.value, 0) | torch.eq(fact.value, 1)
            assert ((p - fact.value).abs()[sure] < 1e-4).all()

    fuzz()


@pytest.mark.parametrize("other", [5, None, "dog", {"cat": 1}, [fa.Labels({"cat": 1})]])
def test_evidence_joins_evidence_only(other):
    known = fa.Labels({"dog": 1})
    for join in (lambda: known & other, lambda: other & known, lambda: fa.All([known, other])):
        with pytest.raises(fa.errors.EvidenceError, match="isn't evidence"):
            join()
    with pytest.raises(fa.errors.EvidenceError):
        fa.All([] if isinstance(other, list) else other)


@QUICK
@given(THINGS | LISTS | st.dictionaries(KEYS, THINGS), st.sampled_from(["multilabel", "tokens"]))
def test_lists_of_labels(labels, kind):
    try:
        output = fa.Output(labels, kind)
    except fa.errors.ModelError as error:
        _is_short(error)
    else:
        assert output.labels
        assert all(type(name) is str for name in output.labels)
