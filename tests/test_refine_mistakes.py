"""Mistakes in what refine is given: named errors that say which image, option or name it is."""

import math

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError, InputError, OptionsError, PluginError, SiteError
from feedback_adapter.testing import LABELS, tiny_adapter, tiny_images

STRATEGIES = ["residual", "layerwise"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "newton"),
        ({"strategy": "auto"}, "newton"),
        ({"steps": 1}, "newton"),
        ({"prior_std": 2.0}, "newton"),
        ({"step_size": 0.02}, "residual"),
        ({"options": fa.ResidualOptions(steps=1)}, "residual"),
        ({"strategy": "layerwise"}, "layerwise"),
    ],
)
def test_the_default_is_newton_where_it_takes_what_is_given(given, name):
    told = fa.Labels({LABELS[0]: 1})
    result = tiny_adapter().refine(tiny_images(2), told, **given)
    assert result.strategy == name
    assert (result.losses[-1] < result.losses[0]).all()


def test_unknown_names_get_a_near_miss():
    adapter, images, told = tiny_adapter(), tiny_images(2), fa.Labels({"cat": 1})
    with pytest.raises(OptionsError, match=r"There is no option 'stepsize'.*'step_size'"):
        adapter.refine(images, told, stepsize=0.1)
    with pytest.raises(PluginError, match=r"no strategy 'residul'.*'residual'"):
        adapter.refine(images, told, strategy="residul")
    with pytest.raises(SiteError, match=r"no site 'again2'.*'again'"):
        adapter.refine(images, told, pivots="again2")
    with pytest.raises(SiteError, match=r"'again' is called 2 times.*no #5"):
        adapter.refine(images, told, pivots="again#5")
    with pytest.raises(SiteError) as caught:
        adapter.refine(images, told, strategy="residual", pivots=["stem", "again2"])
    said = "Given: strategy='residual', pivots=['stem', 'again2'], images (2, 3, 16, 16), Adapter("
    assert said in str(caught.value)
    with pytest.raises(SiteError, match="pivots is empty"):
        adapter.refine(images, told, pivots=[])
    with pytest.raises(OptionsError, match="takes LayerwiseOptions, not ResidualOptions"):
        adapter.refine(images, told, strategy="layerwise", options=fa.ResidualOptions())
    with pytest.raises(EvidenceError, match=r"evidence is a dict.*Labels"):
        adapter.refine(images, {"cat": 1})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_images_that_are_not_finite_are_named(bad):
    images = tiny_images(4)
    images[2, 0, 3, 3] = bad
    with pytest.raises(InputError, match=r"NaN or inf in image 2"):
        tiny_adapter().refine(images, fa.Labels({"cat": 1}))


class Cliff(nn.Module):
    """Finite until the pivot passes a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.pivot, self.limit = nn.Identity(), limit

    def forward(self, x):
        x = self.pivot(x)
        return x * torch.where(x > self.limit, torch.nan, 1.0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loss_that_diverges_is_named(strategy):
    adapter = fa.wrap(Cliff(2.0), labels=["yes"])
    x = torch.tensor([[0.0], [0.1], [1.9], [0.2]])
    told = fa.Labels({"yes": [None, 0.6, 1, None]})
    with pytest.raises(EvidenceError, match=r"loss of image 2 is nan. Try a smaller step_size"):
        adapter.refine(
            x, told, strategy=strategy, pivots="pivot", unit="absolute", step_size=0.05,
        )  # fmt: skip
    with pytest.raises(EvidenceError, match=r"loss of image 1 is nan. The model's outputs aren't"):
        adapter.refine(torch.tensor([[1.0], [3.0]]), fa.Labels({"yes": 1}), pivots="pivot")
