"""Turning models around."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

import fa_cnnf
from fa_cnnf.nets import FashionNet, WideResNet
from feedback_adapter.errors import FeedbackAdapterError, OptionsError, SiteError

MODELS = {
    "vgg11": (lambda: torchvision.models.vgg11(num_classes=5), "features.5", 0.0),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), "layer2", 1e-5),
    "timm-resnet18": (lambda: timm.create_model("resnet18", num_classes=5), "layer3.0", 1e-5),
    "timm-resnet26d": (lambda: timm.create_model("resnet26d", num_classes=5), "layer1", 1e-5),
    "fashion": (FashionNet, "relu2", 0.0),
    "wide": (lambda: WideResNet(10, 2), "group1", 0.0),
}


def make(name):
    model = MODELS[name][0]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    size = {"fashion": (1, 28), "wide": (3, 32)}.get(name, (3, 48))
    return model, torch.randn(2, size[0], size[1], size[1])


@pytest.mark.parametrize("name", MODELS)
def test_first_pass_is_the_plain_model(name):
    model, x = make(name)
    before = copy.deepcopy(model.state_dict())
    loop = fa_cnnf.convert(model, MODELS[name][1], steps=1)
    with torch.no_grad():
        expected, unroll = model(x), loop.unroll(x)
    scale = expected.abs().max()
    assert (unroll.logits[0] - expected).abs().max() <= MODELS[name][2] * scale
    assert unroll.reconstructions[0].shape == unroll.features[0].shape
    assert unroll.reconstructions[0].abs().max() > 0
    assert (unroll.logits[1] - expected).abs().max() > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_grouped_and_strided_convolutions_turn_around_as_autograd_does():
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 6, 5, stride=3, padding=(2, 1), dilation=(1, 2)),
        nn.ReLU6(),
        nn.MaxPool2d(3, 2, 1),
        nn.Flatten(),
        nn.LazyLinear(5),
    ).double()
    x = torch.randn(3, 4, 35, 38, dtype=torch.double, requires_grad=True)
    expected = model(x)
    (product,) = torch.autograd.grad(expected, x, expected.detach())
    unroll = fa_cnnf.convert(model, "input", 1, norms=False).unroll(x.detach())
    assert torch.equal(unroll.logits[0], expected)
    torch.testing.assert_close(unroll.reconstructions[0], product, rtol=1e-12, atol=1e-12)


def test_unsupported_module_is_named_with_what_is_supported():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.GELU()))
    with pytest.raises(fa_cnnf.UnsupportedModuleError, match=r"'1\.0'.*GELU.*Supported: Conv2d"):
        fa_cnnf.convert(model)
    assert issubclass(fa_cnnf.UnsupportedModuleError, FeedbackAdapterError)


@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(3, 4, 2, padding="same")],
)
def test_convolution_without_a_transpose_is_refused(module):
    with pytest.raises(fa_cnnf.UnsupportedModuleError, match="padding"):
        fa_cnnf.convert(nn.Sequential(module, nn.ReLU()))


def test_subclass_of_a_supported_model_is_refused():
    class Mine(torchvision.models.ResNet):
        def forward(self, x):
            return super().forward(x.flip(-1))

    mine = Mine(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    with pytest.raises(fa_cnnf.UnsupportedModuleError, match="no rule"):
        fa_cnnf.convert(mine)


def test_unknown_site_names_near_ones():
    with pytest.raises(SiteError, match="Did you mean 'relu2'"):
        fa_cnnf.convert(FashionNet(), "rellu2")


@pytest.mark.parametrize("options", [{"steps": -1}, {"step_size": 1.5}, {"head_norm": "none"}])
def test_options_out_of_range(options):
    with pytest.raises(OptionsError):
        fa_cnnf.convert(FashionNet(), **options)


def test_every_listed_site_works():
    net = WideResNet(10, 1)
    x = torch.randn(1, 3, 32, 32)
    for site in fa_cnnf.sites(net):
        unroll = fa_cnnf.convert(net, site).unroll(x)
        assert unroll.features[0].shape == unroll.reconstructions[0].shape
