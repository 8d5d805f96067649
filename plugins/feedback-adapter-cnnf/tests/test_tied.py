"""Tied mode, and the strategy."""

import copy

import pytest
import timm
import torch
from torch import nn

import fa_cnnf
import feedback_adapter as fa
from fa_cnnf.loops.tied import TiedLoop
from fa_cnnf.nets import FashionNet
from fa_cnnf.plugin import feedback_adapter_strategies
from fa_cnnf.strategy import CNNFOptions, CNNFStrategy
from feedback_adapter.errors import EvidenceError, ModelError, OptionsError
from feedback_adapter.sites import Inputs
from feedback_adapter.strategies.base import Problem


def test_norm_makes_the_feedback_below_each_convolution_unit():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 1), nn.Flatten())
    x = torch.randn(2, 2, 6, 6)
    g = TiedLoop(model, "0", 1).unroll(x).reconstructions[0]
    plain = TiedLoop(model, "0", 1, norms=False).unroll(x).reconstructions[0]
    torch.testing.assert_close(g, plain)  # the site's own convolution isn't normalised
    below = TiedLoop(model, "input", 1).unroll(x).reconstructions[0]
    unit = plain / plain.square().mean((2, 3), keepdim=True).sqrt()
    expected = nn.functional.conv_transpose2d(unit, model[0].weight, padding=1)
    torch.testing.assert_close(below, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "site"), [("vit_tiny_patch16_224", "blocks.3"), ("convnext_atto", "stages.1")]
)
def test_any_model_and_it_stays_as_it_was(name, site):
    model = timm.create_model(name, num_classes=5).train()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(2, 3, 224, 224)
    unroll = TiedLoop(model, site, 1).unroll(x)
    assert unroll.logits.shape == (2, 2, 5)
    assert (unroll.logits[0] - model.eval()(x)).abs().max() < 1e-5
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_a_model_without_logits_is_named():
    with pytest.raises(ModelError, match="not logits"):
        TiedLoop(nn.Conv2d(1, 1, 1), "input").unroll(torch.randn(1, 1, 4, 4))


def test_options():
    with pytest.raises(OptionsError, match="steps=-1"):
        CNNFOptions(steps=-1)
    with pytest.raises(OptionsError, match="step_size=2"):
        TiedLoop(FashionNet(), step_size=2)


class Clamp(fa.Evidence):
    """The first class, for certain."""

    def loss(self, outputs):
        return -outputs["output"].log_softmax(-1)[:, 0]

    def clamp(self, outputs):
        return outputs.replace(output=10 * torch.eye(10)[[0] * outputs.batch])

    def known(self, outputs):
        return {"output": torch.ones(outputs.batch, 10, dtype=torch.bool)}

    def take(self, rows):
        return self


@pytest.mark.parametrize("converted", [True, False])
def test_strategy_generates_from_evidence(converted):
    net = FashionNet()
    model = fa_cnnf.convert(net, "relu2", steps=2) if converted else net
    specs = {"output": fa.Output(tuple("abcdefghij"), "multiclass")}
    x = torch.randn(3, 1, 28, 28)
    site = fa.Site("input" if converted else "relu2")

    def read(value):
        return fa.Outputs({"output": value}, specs)

    problem = Problem(model, Inputs.of(x), Clamp(), (site,), read)
    result = CNNFStrategy(CNNFOptions(steps=3, step_size=0.1, trace=True)).refine(problem)
    assert torch.allclose(result.before, net(x), atol=1e-6)
    assert result.losses.shape == (4, 3)
    assert (result.losses[-1] < result.losses[0]).all()
    assert result.trace["output"].shape == (4, 3, 10)


def test_evidence_about_another_output_than_the_first_is_an_error():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            h = self.body(x)
            return {"first": self.a(h), "second": self.b(h)}

    outputs = {
        name: fa.Output((f"{name}-x", f"{name}-y"), "multilabel", select=name)
        for name in ("first", "second")
    }
    adapter = fa.wrap(Two(), outputs=outputs)
    told = fa.Labels({"second-x": 1})
    with pytest.raises(EvidenceError, match="'first', and this evidence is about 'second'"):
        adapter.refine(torch.randn(2, 4), told, strategy="cnnf", pivots="body")


def test_registered_name():
    assert [spec.name for spec in feedback_adapter_strategies()] == ["cnnf"]
