"""The model is the user's: bit for bit what it was, after refine and after any exception in it."""

import threading
from collections import deque

import pytest
import timm
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.testing import (
    LABELS,
    TinyNet,
    tiny_adapter,
    tiny_images,
    untouched,
)

STRATEGIES = ["residual", "layerwise", "newton"]
TOLD = fa.Labels({"cat": 1, "snow": 0})
CALL = nn.Module.__call__


class Stop(Exception):
    """What a broken model or broken evidence raises here."""


@pytest.fixture
def model() -> nn.Module:
    """A model in the middle of someone's training: mixed flags, gradients and hooks."""
    net = TinyNet().train()
    net.block.eval()
    net.stem[0].weight.requires_grad_(False)
    net.head.weight.grad = torch.randn_like(net.head.weight)
    net.again.bias.grad = torch.zeros_like(net.again.bias)
    fired = deque[str]()
    net.fired = lambda: fired  # not the model's own: hooks of the user may write where they like
    note = fired.append
    net.again.register_forward_hook(lambda *_: note("again"))
    net.block.register_forward_pre_hook(lambda *_: note("block"))
    net.head.register_full_backward_hook(lambda *_: note("backward"))
    net.head.weight.register_hook(lambda gradient: note("weight"))
    net.stem.register_state_dict_pre_hook(lambda *_: None)
    net.drop.forward = net.drop.forward  # an instance's own
    return net


@pytest.mark.parametrize("pivots", ["input", "stem", ["stem", "again#1"], "auto"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_changes(model, strategy, pivots):
    with untouched(model):
        result = fa.wrap(model, labels=LABELS).refine(
            tiny_images(5), TOLD, strategy=strategy, pivots=pivots, steps=4
        )
    assert (result.losses[-1] < result.losses[0]).all()  # it did run
    assert model.training
    assert not model.block.training
    assert "weight" not in model.fired()  # no gradient reached a parameter


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_changes_in_a_timm_model(strategy):
    model = timm.create_model("resnet18", num_classes=4).train()
    model.layer2.eval()
    with untouched(model):
        fa.wrap(model, labels=LABELS).refine(
            torch.randn(2, 3, 32, 32), TOLD, strategy=strategy, steps=2
        )
        fa.wrap(model, labels=LABELS).sites(torch.randn(1, 3, 32, 32))
        fa.wrap(model, labels=LABELS).predict(torch.randn(1, 3, 32, 32))


def test_evaluation_mode_while_it_runs(model):
    """Dropout is off and batch norm takes its running statistics, whatever the flags say."""
    adapter = fa.wrap(model, labels=LABELS)
    images = tiny_images(3)
    expected = TinyNet().eval()(images)
    assert torch.equal(adapter.refine(images, TOLD, steps=1).before, expected)
    assert torch.equal(adapter.predict(images), expected)


def test_other_peoples_hooks_still_fire(model):
    fa.wrap(model, labels=LABELS).refine(tiny_images(2), TOLD, pivots="block", steps=3)
    during = list(model.fired())
    assert during.count("again") >= 2 * (1 + 3)  # it is called twice, and follows the pivot
    model.fired().clear()
    model.eval()(tiny_images(1))
    assert list(model.fired()) == ["block", "again", "again"]


def test_other_peoples_hooks_count():
    """A hook that changes an activation is part of the model."""
    net = TinyNet().eval()
    images = tiny_images(2)
    plain = fa.wrap(net, labels=LABELS).refine(images, TOLD, pivots="stem", steps=3)
    net.again.register_forward_hook(lambda module, args, output: output * 2)
    hooked = fa.wrap(net, labels=LABELS).refine(images, TOLD, pivots="stem", steps=3)
    assert torch.equal(hooked.before, net(images))
    assert (hooked.after - plain.after).abs().max() > 1e-3


# ---- exceptions ----


class Fails(nn.Module):
    """Raises when it has been called so many times."""

    def __init__(self, calls: int, error: BaseException) -> None:
        super().__init__()
        self.left, self.error = deque([calls]), error  # not compared by `untouched`

    def forward(self, x):
        self.left[0] -= 1
        if self.left[0] < 0:
            raise self.error
        return x


class FailingEvidence(fa.Labels):
    left = 2

    def bind(self, specs, batch):
        self.told = super().bind(specs, batch)
        return self

    def loss(self, outputs):
        self.left -= 1
        if self.left < 0:
            raise Stop
        return self.told.loss(outputs)

    def known(self, outputs):
        return self.told.known(outputs)

    def clamp(self, outputs):
        return self.told.clamp(outputs)


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, RuntimeError, GeneratorExit])
@pytest.mark.parametrize("calls", [0, 1, 2, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_error_inside_the_model(model, strategy, calls, error):
    model.head = nn.Sequential(Fails(calls, error()), model.head)
    raised = fa.errors.FeedbackAdapterError if error is RuntimeError else error
    with untouched(model), pytest.raises(raised):
        fa.wrap(model, labels=LABELS).refine(
            tiny_images(3), TOLD, strategy=strategy, pivots=["stem", "again#0"], steps=9
        )
    assert nn.Module.__call__ is CALL
    model.fired().clear()
    model.eval().again(torch.zeros(1, 8, 4, 4))  # calls go their ordinary way again
    assert list(model.fired()) == ["again"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_error_inside_evidence(model, strategy):
    with untouched(model), pytest.raises(Stop):
        fa.wrap(model, labels=LABELS).refine(
            tiny_images(3), FailingEvidence({"cat": 1}), strategy=strategy, pivots="stem"
        )


def test_an_error_inside_a_solver(model):
    class Bad(fa.SGD):
        def step(self, state, gradient, step_size):
            raise KeyboardInterrupt

    with untouched(model), pytest.raises(KeyboardInterrupt):
        fa.wrap(model, labels=LABELS).refine(tiny_images(2), TOLD, solver=Bad())


@pytest.mark.parametrize(
    "mistake",
    [
        {"pivots": "nowhere"},
        {"strategy": "nothing"},
        {"steps": -1},
        {"evidence": fa.Labels({"cow": 1})},
        {"images": torch.full((2, 3, 16, 16), torch.nan)},
    ],
    ids=lambda mistake: next(iter(mistake)),
)
def test_a_mistake_of_the_user(model, mistake):
    arguments = {"images": tiny_images(2), "evidence": TOLD, **mistake}
    with untouched(model), pytest.raises(fa.FeedbackAdapterError):
        fa.wrap(model, labels=LABELS).refine(**arguments)


# ---- whatever the caller is in ----


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_grad_mode_of_the_caller(model, strategy, context):
    adapter, images = fa.wrap(model, labels=LABELS), tiny_images(3)
    expected = adapter.refine(images, TOLD, strategy=strategy, steps=4)
    with context(), untouched(model):
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        result = adapter.refine(images, TOLD, strategy=strategy, steps=4)
        inside = adapter.refine(images + 0, TOLD, strategy=strategy, steps=4)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == mode
    assert torch.equal(result.after, expected.after)
    assert torch.equal(inside.after, expected.after)
    assert not result.after.requires_grad
    assert not result.before.requires_grad


def test_no_gradient_reaches_a_parameter_or_the_images(model):
    model.zero_grad(set_to_none=True)
    images = tiny_images(2).requires_grad_()
    result = fa.wrap(model, labels=LABELS).refine(images, TOLD, pivots="input", steps=2)
    assert images.grad is None
    assert images.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    for value in (result.before, result.after, result.losses):
        assert not value.requires_grad


@pytest.mark.parametrize("pivots", ["input", "stem.0"])
def test_the_images_are_not_changed(pivots):
    images = tiny_images(3)
    before, version = images.clone(), images._version
    tiny_adapter().refine(images, TOLD, pivots=pivots, steps=3)
    assert torch.equal(images, before)
    assert images._version == version


# ---- threads ----


def test_threads_refine_one_model_at_once(model):
    adapter, images = fa.wrap(model, labels=LABELS), tiny_images(4)
    alone = {
        strategy: adapter.refine(images, TOLD, strategy=strategy, steps=12)
        for strategy in STRATEGIES
    }
    start, count = threading.Barrier(len(STRATEGIES) + 1), 4 * len(STRATEGIES)
    results, errors = [], []

    def work(strategy: str) -> None:
        try:
            start.wait()
            results.extend(
                (strategy, adapter.refine(images, TOLD, strategy=strategy, steps=12))
                for _ in range(4)
            )
        except BaseException as error:
            errors.append(error)

    def plain() -> None:
        """Someone else's model in a third thread isn't watched."""
        other = TinyNet().eval()
        expected = other(images)
        start.wait()
        while len(results) + count * len(errors) < count:
            if not torch.equal(other(images), expected):
                errors.append(AssertionError("another model's answer changed"))

    with untouched(model):
        threads = [threading.Thread(target=work, args=(s,)) for s in STRATEGIES]
        threads.append(threading.Thread(target=plain))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert len(results) == count
    for strategy, result in results:
        assert torch.equal(result.after, alone[strategy].after)
    assert nn.Module.__call__ is CALL


def test_an_error_in_one_thread_leaves_another_alone(model):
    good, bad = fa.wrap(model, labels=LABELS), fa.wrap(model, labels=LABELS)
    images = tiny_images(4)
    expected = good.refine(images, TOLD, steps=20)
    start, results = threading.Barrier(2), []

    def work() -> None:
        start.wait()
        results.append(good.refine(images, TOLD, steps=20))

    with untouched(model):
        thread = threading.Thread(target=work)
        thread.start()
        start.wait()
        for _ in range(3):
            with pytest.raises(Stop):
                bad.refine(images, FailingEvidence({"cat": 1}))
        thread.join()
    assert torch.equal(results[0].after, expected.after)
