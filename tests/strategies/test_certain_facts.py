"""What is certain holds in the result of every strategy, and the network's own view is kept."""

import pytest
import torch

import feedback_adapter as fa
from feedback_adapter.builtin import feedback_adapter_strategies
from feedback_adapter.testing import tiny_adapter, tiny_images

STRATEGIES = [spec.name for spec in feedback_adapter_strategies()]
PETS = {"pet": ["cat", "dog"], "thing": ["ball", "snow"]}


def adapter_for(strategy, kind):
    adapter = tiny_adapter(kind)
    if strategy == "posterior":
        if kind == "multiclass":
            pytest.skip("label statistics are of multilabel outputs")
        p = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
        adapter.fit_prior(p, (p > 0.5).float())
    return adapter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_labels_that_are_present_or_absent(strategy, dtype):
    adapter = adapter_for(strategy, "multilabel")
    adapter.model.to(dtype)
    result = adapter.refine(
        tiny_images(3).to(dtype), fa.Labels({"cat": 1, "ball": 0}), strategy=strategy
    )
    p = result.after.double().sigmoid()
    assert (p[:, 0] >= 1 - 2e-6).all()
    assert (p[:, 3] <= 2e-6).all()
    assert result.after.dtype == dtype


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_coarse_class_leaves_no_image_outside_it(strategy):
    adapter = adapter_for(strategy, "multiclass")
    images = tiny_images(20)
    told = fa.Coarse(["pet", "thing"] * 10, hierarchy=PETS)
    p = adapter.refine(images, told, strategy=strategy).after.softmax(1)
    assert (p[::2, :2].sum(1) > 1 - 1e-5).all()
    assert (p[1::2, 2:].sum(1) > 1 - 1e-5).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_class_that_is_ruled_out_is_never_first(strategy):
    adapter = adapter_for(strategy, "multiclass")
    images = tiny_images(8)
    first = adapter.predict(images).argmax(1)
    told = fa.Labels([{adapter.labels[i]: 0} for i in first.tolist()])
    result = adapter.refine(images, told, strategy=strategy)
    assert (result.after.argmax(1) != first).all()
    assert result.after.softmax(1).gather(1, first[:, None]).max() <= 2e-6


def test_what_is_likely_moves_a_prediction_by_its_share():
    adapter = tiny_adapter()
    told = fa.Labels({"cat": 1}, confidence=0.5)
    result = adapter.refine(tiny_images(3), told, strategy="residual")
    p = result.refined.sigmoid()[:, 0]
    torch.testing.assert_close(result.after.sigmoid()[:, 0], p + 0.5 * (1 - p))


def test_after_is_the_posterior_of_what_the_network_says():
    adapter, told = tiny_adapter(), fa.Labels({"cat": 1}) & fa.Text("a dog", absent=0.5)
    result = adapter.refine(tiny_images(3), told, strategy="residual")
    expected = told.clamp(fa.Outputs({"output": result.refined}, adapter.outputs))
    torch.testing.assert_close(result.after, expected["output"])
    assert not torch.equal(result.refined, result.before)


def test_the_clamp_moves_nothing_else():
    adapter, told = tiny_adapter(), fa.Labels({"cat": 1})
    result = adapter.refine(tiny_images(3), told, strategy="clamp")
    assert torch.equal(result.after[:, 1:], result.before[:, 1:])
    assert torch.equal(result.refined, result.before)
    assert result.improved.all()
    assert (result.steps == 0).all()


@pytest.mark.parametrize(
    ("kind", "second", "told", "chosen"),
    [
        ("multiclass", None, fa.Coarse("pet", hierarchy=PETS), "clamp"),
        ("multiclass", None, fa.Labels({"cat": 0}), "clamp"),
        ("multilabel", None, fa.Labels({"cat": 0}), "newton"),
        ("multiclass", "multilabel", fa.Labels({"cat": 0}), "newton"),  # something else may move
    ],
)
def test_the_clamp_is_chosen_where_only_classes_of_one_output_are_known(kind, second, told, chosen):
    adapter = tiny_adapter(kind, second=second)
    assert adapter.refine(tiny_images(2), told).strategy == chosen


class FineAndCoarse(torch.nn.Module):
    """Fine classes, and their coarse classes by a head of their own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.fine, self.coarse = (
            torch.nn.Linear(a, b) for a, b in [(6, 5), (5, 4), (5, 2)]
        )

    def forward(self, x):
        x = self.body(x.flatten(1)).tanh()
        return {"fine": self.fine(x), "coarse": self.coarse(x)}


@pytest.mark.parametrize("through", ["classes", "head", "both"])
@pytest.mark.parametrize("strategy", ["auto", "clamp", "newton", "residual"])
def test_a_coarse_class_holds_in_both_outputs_whatever_agrees_with_it(strategy, through):
    outputs = {
        "fine": fa.Output(("cat", "dog", "ball", "snow"), "multiclass", "fine", hierarchy=PETS),
        "coarse": fa.Output(("pet", "thing"), "multiclass", "coarse"),
    }
    adapter = fa.Adapter(FineAndCoarse().eval(), outputs)
    images = torch.randn(6, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    told = fa.Coarse(["pet", "thing"] * 3, through=through)
    result = adapter.refine(images, told, strategy=strategy, pivots="body")
    fine, coarse = result.after["fine"].softmax(1), result.after["coarse"].softmax(1)
    assert (fine[::2, :2].sum(1) > 1 - 1e-5).all()
    assert (coarse[::2, 0] > 1 - 1e-5).all()
    assert (coarse[1::2, 1] > 1 - 1e-5).all()
    assert result.strategy == ("clamp" if strategy == "auto" else strategy)
