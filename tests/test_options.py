"""Options: what is possible is used as Python's own, everything else is one named error."""

import dataclasses
import fractions

import numpy as np
import pytest
import torch

import feedback_adapter as fa
from feedback_adapter.errors import OptionsError
from feedback_adapter.options import check, each, flag, one_of, optional, whole, within
from feedback_adapter.testing import tiny_adapter, tiny_images

STRATEGIES = ("newton", "residual", "layerwise")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("steps", [np.int64(3), np.arange(4)[3], np.uint8(3)])
def test_whole_numbers_of_numpy_are_whole_numbers(strategy, steps):
    images, told = tiny_images(2), fa.Labels({"cat": 1})
    refined = tiny_adapter().refine(images, told, strategy=strategy, steps=steps)
    plain = tiny_adapter().refine(images, told, strategy=strategy, steps=3)
    assert torch.equal(refined.after, plain.after)
    assert torch.equal(refined.losses, plain.losses)


def test_numbers_become_pythons_own():
    options = fa.ResidualOptions(
        steps=np.int32(2), step_size=np.float32(0.5), tolerance=fractions.Fraction(1, 4)
    )
    assert (type(options.steps), options.step_size, options.tolerance) == (int, 0.5, 0.25)
    assert type(options.step_size) is type(options.tolerance) is float
    assert type(fa.NewtonOptions(trace=np.True_).trace) is bool
    assert fa.Adam(betas=[np.float64(0.5), 0]).betas == (0.5, 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fa.NewtonOptions(steps=10**400), "at most 1,000,000"),
        (lambda: fa.NewtonOptions(steps=1_000_001), "at most 1,000,000"),
        (lambda: fa.NewtonOptions(steps=True), "steps=True"),
        (lambda: fa.NewtonOptions(trace="no"), "trace='no' .* True or False"),
        (lambda: fa.ResidualOptions(unit=["rms"]), "'rms' or 'absolute'"),
        (lambda: fa.ResidualOptions(unit=np.array(["rms", "x"])), "'rms' or 'absolute'"),
        (lambda: fa.ResidualOptions(step_size=torch.tensor([1.0, 2.0])), "above 0"),
        (lambda: fa.ResidualOptions(patience=float("nan")), "from 1 on.*or None"),
        (lambda: fa.Adam(betas=5), "betas=5 .*2 values, each in"),
        (lambda: fa.Adam(betas="ab"), "2 values"),
        (lambda: fa.Adam(betas=(0.9,)), "2 values"),
        (lambda: fa.SGD(momentum="x"), "momentum='x'"),
        (lambda: fa.PosteriorOptions(joint_ridge=float("inf")), "joint_ridge=inf"),
        (lambda: fa.PosteriorOptions(joint="x"), "joint='x'"),
    ],
)
def test_impossible_values_are_named(make, said):
    with pytest.raises(OptionsError, match=said):
        make()


def test_a_long_value_is_shortened():
    with pytest.raises(OptionsError) as caught:
        fa.NewtonOptions(steps="x" * 10**6)
    assert len(str(caught.value)) < 400


@dataclasses.dataclass
class Some:
    value: object


@pytest.mark.parametrize(
    ("rule", "given", "made"),
    [
        (each(whole(0)), range(3), (0, 1, 2)),
        (each(within(0, 1), 2), [np.float32(0.5), 1], (0.5, 1)),
        (optional(whole(1)), None, None),
        (optional(whole(1)), np.int8(2), 2),
        (flag(), np.False_, False),
        (one_of("a", "b"), "b", "b"),
    ],
)
def test_what_rules_make(rule, given, made):
    some = Some(given)
    check(some, {"value": rule})
    assert some.value == made
    assert type(some.value) is type(made)


@pytest.mark.parametrize("given", [[], "ab", {1: 2}, None, 3, np.arange(3), [1, "x"]])
def test_what_isnt_a_list_of_values(given):
    with pytest.raises(OptionsError, match="a list of values, each a whole number"):
        check(Some(given), {"value": each(whole(0))})


@pytest.mark.parametrize("huge", [1e19, 1e300, 10**30])
def test_numbers_whose_squares_floats_cannot_hold_are_refused(huge):
    for options in (
        lambda: fa.NewtonOptions(prior_std=huge),
        lambda: fa.ResidualOptions(proximal=huge),
        lambda: fa.ResidualOptions(tolerance=huge),
        lambda: fa.ResidualOptions(step_size=huge),
    ):
        with pytest.raises(OptionsError, match=r"is out of range: .* at most 1e\+18"):
            options()
