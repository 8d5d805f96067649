"""Decoder mode: nothing changes at first, the model never does, and training does what it says."""

import copy

import pytest
import timm
import torch
from torch import nn

import fa_cnnf
import feedback_adapter as fa
from feedback_adapter.errors import OptionsError, SiteError

SITES = {"small": ("stem", "stage1", "stage2"), "resnet10t": ("layer1", "layer2", "layer3")}


def make(name):
    if name == "small":
        model = fa_cnnf.nets.SmallResNet(8)
    else:
        model = timm.create_model(name, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("name", SITES)
def test_a_wrapped_model_starts_bit_identical(name):
    model, x = make(name), torch.randn(3, 3, 32, 32)
    loop = fa_cnnf.decoders(model, x[:1], SITES[name], steps=3)
    with torch.no_grad():
        logits = loop.unroll(x).logits
        assert all(torch.equal(o, model(x)) for o in logits)
        assert torch.equal(loop(x), model(x))


def test_decoders_are_small_and_of_the_shape_that_is_documented():
    model = make("resnet10t")
    loop = fa_cnnf.decoders(model, torch.randn(1, 3, 64, 64), SITES["resnet10t"], width=96)
    shapes = [tuple(d.narrow.weight.shape) for d in loop.decoders]
    assert shapes == [(64, 128, 1, 1), (96, 256, 1, 1), (96, 10, 1, 1)]
    x = torch.randn(2, 3, 64, 64)
    unroll = loop.unroll(x, 1)
    assert unroll.reconstructions[0].shape == unroll.features[0].shape == (2, 64, 16, 16)


def trained():
    torch.manual_seed(0)
    model, x = make("small"), torch.randn(16, 3, 32, 32)
    loop = fa_cnnf.decoders(model, x[:1], SITES["small"], steps=2)
    return model, loop, x


def test_training_moves_decoders_then_gammas_and_never_the_model():
    model, loop, x = trained()
    model.train()  # the owner's mode is the owner's
    before = copy.deepcopy(model.state_dict())
    losses, y = [], torch.arange(16) % 10
    generator = torch.Generator().manual_seed(0)

    def corrupt(images):
        return images + 0.3 * torch.randn(images.shape, generator=generator)

    fa_cnnf.fit_decoders(loop, [x] * 25, corrupt, lr=3e-3, report=losses.append)
    assert all(b < 0.9 * a for a, b in zip(losses[0], losses[-1], strict=True))
    assert all(not g.any() for g in loop.gammas)
    gammas, weights = [], copy.deepcopy(loop.decoders.state_dict())
    fa_cnnf.fit_gammas(loop, [(x, y)] * 12, corrupt, lr=0.03, report=gammas.append)
    assert min(gammas[-3:]) < gammas[0]
    assert all(g.abs().max() > 0 for g in loop.gammas)
    assert all(torch.equal(v, weights[k]) for k, v in loop.decoders.state_dict().items())
    assert all(p.requires_grad for p in loop.decoders.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_fitted_loop_is_saved_and_loaded(tmp_path):
    model, loop, x = trained()
    with torch.no_grad():
        for gamma in loop.gammas:
            gamma.fill_(0.2)
    adapter = fa.wrap(loop, labels=[str(n) for n in range(10)], kind="multiclass")
    with pytest.warns(UserWarning, match="build the model and call load"):
        adapter.save(tmp_path / "net")
    other = fa_cnnf.decoders(make("small"), x[:1], SITES["small"], steps=2)
    again = fa.load(tmp_path / "net", model=other)
    with torch.no_grad():
        assert torch.equal(again.predict(x), loop(x))
        assert not torch.equal(loop(x), model(x))


def test_evidence_at_the_top_reaches_what_is_generated():
    _, loop, x = trained()
    with torch.no_grad():
        for gamma in loop.gammas:
            gamma.fill_(0.2)
    adapter = fa.wrap(loop, labels=[str(n) for n in range(10)], kind="multiclass")
    results = [
        adapter.refine(x, fa.Labels({str(n): 1}), strategy="cnnf", pivots="input", steps=2)
        for n in (3, 4)
    ]
    assert torch.equal(results[0].before, results[1].before)
    assert not torch.equal(results[0].after, results[1].after)
    assert results[0].pivots == SITES["small"]
    alone = adapter.refine(x[:1], fa.Labels({"3": 1}), strategy="cnnf", pivots="input", steps=2)
    torch.testing.assert_close(alone.after, results[0].after[:1], rtol=1e-5, atol=1e-5)


def test_mistakes_are_named():
    model, x = make("small"), torch.randn(1, 3, 32, 32)
    with pytest.raises(SiteError, match="stage1"):
        fa_cnnf.decoders(model, x, ["stage7"])
    with pytest.raises(fa_cnnf.DecoderError, match=r"'fc' is \(1, 10\)"):
        fa_cnnf.decoders(model, x, ["stem", "fc"])
    with pytest.raises(fa_cnnf.DecoderError, match="empty"):
        fa_cnnf.decoders(model, x, [])
    with pytest.raises(OptionsError, match="kind='tokens'"):
        fa_cnnf.decoders(model, x, ["stem"], kind="tokens")
    with pytest.raises(OptionsError, match="steps=-1"):
        fa_cnnf.decoders(model, x, ["stem"]).unroll(x, -1)
