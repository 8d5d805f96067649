"""The checks of feedback_adapter.testing find what they are for."""

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.testing import (
    LABELS,
    ConformanceError,
    TinyNet,
    check_evidence,
    check_strategy,
    tiny_adapter,
    tiny_images,
    tiny_outputs,
    untouched,
)

TOLD = fa.Labels({"cat": 1, "snow": 0})


def touch_weights(net):
    with torch.no_grad():
        net.head.bias.add_(1)


TOUCHES = {
    "head.bias changed": touch_weights,
    "training changed": lambda net: net.drop.train(not net.drop.training),
    "requires_grad changed": lambda net: net.head.weight.requires_grad_(False),
    "grad changed": lambda net: net(tiny_images(1)).sum().backward(),
    "_forward_hooks changed": lambda net: net.stem.register_forward_hook(lambda *_: None),
    "forward appeared": lambda net: setattr(net.stem, "forward", net.stem.forward),
    "running_mean changed": lambda net: net.train()(tiny_images(2)),
    "identity": lambda net: setattr(net.head, "bias", nn.Parameter(net.head.bias.detach().clone())),
}


@pytest.mark.parametrize("what", TOUCHES)
def test_untouched_finds_a_touch(what):
    net = TinyNet().eval()
    with pytest.raises(ConformanceError), untouched(net):
        TOUCHES[what](net)


class BatchNormed(fa.Strategy):
    """A strategy whose result depends on batch mates, and which trains the model."""

    trains = False

    def refine(self, problem):
        from feedback_adapter.strategies import Residual

        result = Residual(self.options).refine(problem)
        after = result.outputs_after["output"]
        if self.trains:
            next(problem.model.parameters()).data.add_(1e-3)
        else:
            after.add_(after.mean(0) * 1e-3)
        return result


class Training(BatchNormed):
    trains = True


def test_check_strategy_finds_broken_promises():
    with pytest.raises(ConformanceError, match="image 0 depends on its batch mates"):
        check_strategy(BatchNormed, fa.ResidualOptions())
    with pytest.raises(ConformanceError, match="changed"):
        check_strategy(Training, fa.ResidualOptions())
    with pytest.raises(ConformanceError, match="loss rose"):
        check_strategy(
            type("Not", (fa.Strategy,), {"refine": lambda s, p: _still(p)}), fa.ResidualOptions()
        )
    with pytest.raises(ConformanceError, match=r"options are a list: .*frozen dataclass"):
        check_strategy(BatchNormed, [])


def _still(problem):
    from feedback_adapter.strategies import Residual

    return Residual(fa.ResidualOptions(steps=0)).refine(problem)


class Averaging(fa.Evidence):
    """Evidence whose loss is averaged over the batch."""

    def __init__(self, told):
        self.told = told

    def loss(self, outputs):
        return self.told.loss(outputs).mean().expand(outputs.batch)

    def clamp(self, outputs):
        return self.told.clamp(outputs)

    def known(self, outputs):
        return self.told.known(outputs)

    def take(self, rows):
        return type(self)(self.told.take(rows))


class Detached(Averaging):
    """Evidence that autograd can't follow."""

    def loss(self, outputs):
        return self.told.loss(outputs) + outputs["output"][:, 0].detach()


class Forgetful(Averaging):
    """Evidence that clamps in place."""

    def loss(self, outputs):
        return self.told.loss(outputs)

    def clamp(self, outputs):
        outputs["output"].clamp_(-0.1, 0.1)
        return outputs


def test_check_evidence_finds_broken_promises():
    with pytest.raises(ConformanceError, match=r"Averaging.take\(.*has another loss"):
        check_evidence(Averaging(fa.Labels({"cat": [1, 0, 1, None]})), tiny_outputs())
    with pytest.raises(ConformanceError, match=r"Detached.loss has a wrong gradient"):
        check_evidence(Detached(TOLD), tiny_outputs())
    with pytest.raises(ConformanceError, match=r"Forgetful changes the outputs .* in place"):
        check_evidence(Forgetful(TOLD), tiny_outputs())
    assert tiny_adapter().labels == LABELS
