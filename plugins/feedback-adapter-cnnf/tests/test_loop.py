"""The loop: gradients through it, and nothing that stays."""

import threading

import pytest
import torch
from torch import nn

import fa_cnnf
from fa_cnnf.nets import FashionNet, WideResNet


def small():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    ).double()


@pytest.mark.parametrize("site", ["input", "2"])
def test_gradient_through_the_unroll(site):
    loop = fa_cnnf.convert(small(), site, steps=2, step_size=0.3)
    x = torch.randn(2, 1, 8, 8, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loop.unroll(x).logits, x)


def test_gradient_reaches_every_weight_through_the_feedback():
    loop = fa_cnnf.convert(small(), "input", steps=1)
    unroll = loop.unroll(torch.randn(2, 1, 8, 8, dtype=torch.double))
    unroll.reconstructions[0].square().sum().backward()
    weights = [p for name, p in loop.named_parameters() if name.endswith("weight")]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in weights)


def test_an_image_does_not_depend_on_its_batch_mates():
    loop = fa_cnnf.convert(WideResNet(10, 1).double(), "group1", steps=3)
    x = torch.randn(5, 3, 32, 32, dtype=torch.double)
    with torch.no_grad():
        together, alone = loop(x), torch.cat([loop(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_two_streams_and_threads_are_independent():
    loop = fa_cnnf.convert(FashionNet().double(), "relu2", steps=2)
    images = [torch.randn(2, 1, 28, 28, dtype=torch.double) for _ in range(4)]
    with torch.no_grad():
        expected = [loop(x) for x in images]
    found = {}

    def work(index):
        with torch.no_grad():
            found[index] = [loop(images[index]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, value in enumerate(expected):
        assert all(torch.equal(value, again) for again in found[index])


def test_nothing_stays_on_the_modules():
    loop = fa_cnnf.convert(FashionNet(), "relu2")
    before = {name: set(vars(module)) for name, module in loop.named_modules()}
    loop(torch.randn(1, 1, 28, 28))
    assert before == {name: set(vars(module)) for name, module in loop.named_modules()}


def test_interleaved_states_do_not_mix():
    loop = fa_cnnf.convert(FashionNet().double(), "relu2")
    segment, (a, b) = loop.segments[0], torch.randn(2, 1, 32, 28, 28, dtype=torch.double)
    one, two = fa_cnnf.State(0.1), fa_cnnf.State(0.1)
    top = segment(a, one)
    segment(b, two)
    assert torch.equal(segment.feedback(top, one), _feedback_alone(segment, a))


def _feedback_alone(segment, h):
    state = fa_cnnf.State(0.1)
    return segment.feedback(segment(h, state), state)


def test_feedback_before_forward_is_a_named_error():
    loop = fa_cnnf.convert(FashionNet(), "relu2")
    with pytest.raises(fa_cnnf.FeedbackError, match="Run forward"):
        loop.segments[0].feedback(torch.randn(1, 10), fa_cnnf.State(0.1))


def test_readouts():
    loop = fa_cnnf.convert(FashionNet(), "relu2", steps=2)
    x = torch.randn(2, 1, 28, 28)
    logits = loop.unroll(x).logits
    assert torch.equal(loop(x), logits[2])
    assert torch.equal(loop(x, readout="avg"), logits.mean(0))
    assert torch.equal(loop(x, steps=0), logits[0])


def test_clamp_decides_what_is_generated():
    loop = fa_cnnf.convert(FashionNet(), "relu2", steps=1)
    x = torch.randn(2, 1, 28, 28)
    one = torch.eye(10)[[3, 4]]
    clamped = loop.unroll(x, clamp=lambda o: one).reconstructions[0]
    assert not torch.equal(clamped, loop.unroll(x).reconstructions[0])
    other = loop.unroll(x.flip(0), clamp=lambda o: one)
    assert not torch.equal(clamped, other.reconstructions[0])


def test_inner_sites_report_features_and_reconstructions():
    loop = fa_cnnf.convert(FashionNet(), "relu2", steps=2, inner=("pool4", "pool3"))
    unroll = loop.unroll(torch.randn(2, 1, 28, 28))
    for name in ("pool3", "pool4"):
        values = unroll.inner_reconstructions[name]
        assert [v.shape for v in values] == [unroll.inner_features[name].shape] * 2


def test_head_norm_per_sample_keeps_more_than_signs():
    x = torch.randn(2, 3, 32, 32)
    net = WideResNet(10, 1)
    seen = {}
    for kind in ("channel", "sample"):
        loop = fa_cnnf.convert(net, "group3", steps=1, head_norm=kind)
        seen[kind] = loop.unroll(x).reconstructions[0].abs()
    assert ((seen["channel"] - 1).abs() < 1e-2).float().mean() > 0.2  # on: exactly 1, off: 0
    on = seen["sample"][seen["sample"] > 0]
    assert on.std() > 0.1
