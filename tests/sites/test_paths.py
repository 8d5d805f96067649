"""Models whose way depends on an activation, and derivatives that fail: each test says the case."""

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import SiteError


def test_experts_that_the_activation_chooses_run_as_they_are_chosen():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.gate = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 3)
            self.experts = nn.ModuleList(nn.Linear(8, 2) for _ in range(3))

        def after(self, features):
            features = features.relu().mean((2, 3))
            chosen, logits = self.gate(features).argmax(1), features.new_zeros(len(features), 2)
            for number, expert in enumerate(self.experts):
                rows = (chosen == number).nonzero().flatten()
                if len(rows):
                    logits[rows] = expert(features[rows])
            return logits

        def forward(self, x):
            return self.after(self.stem(x))

    torch.manual_seed(0)
    model, images, told = Experts().eval(), torch.rand(6, 3, 16, 16), fa.Labels({"a": 1})
    adapter = fa.wrap(model, labels=["a", "b"])
    for strategy, options in (("newton", {}), ("residual", {"step_size": 5.0, "patience": None})):
        given = {"strategy": strategy, "pivots": "stem", "explainable": True, **options}
        result = adapter.refine(images, told, **given)
        assert result.improved.all()
        torch.testing.assert_close(result.refined, model.after(result.activations["stem"]).detach())
        alone = adapter.refine(images[:1], told, **given)
        torch.testing.assert_close(alone.after, result.after[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, IndexError])
def test_a_derivative_that_fails_is_named_and_auto_goes_around_it(error):
    class NoDerivative(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *gradients):
            raise error("no derivative here")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(NoDerivative.apply(self.stem(x)).mean((2, 3)))

    adapter, images = fa.wrap(Model().eval(), labels=["a", "b"]), torch.rand(2, 3, 16, 16)
    for strategy in ("newton", "residual"):
        result = adapter.refine(images, fa.Labels({"a": 1}), strategy=strategy)
        assert result.improved.all()
        assert result.pivots == ("head",)
        with pytest.raises(SiteError, match=r"'stem'.*no derivative here.*Choose a later pivot"):
            adapter.refine(images, fa.Labels({"a": 1}), strategy=strategy, pivots="stem")
