"""Conversion: exact until it is trained, on many networks, and named errors where it can't be."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

import fa_dfm
from fa_dfm.errors import FeedbackAdapterError
from fa_dfm.nets import SmallView

TORCHVISION = """resnet18 alexnet vgg11_bn mobilenet_v2 mobilenet_v3_small densenet121 squeezenet1_1
shufflenet_v2_x0_5 efficientnet_b0 mnasnet0_5 regnet_y_400mf convnext_tiny""".split()

SEGMENTATION = "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50".split()

TIMM = """resnet18d tf_efficientnet_lite0 mobilenetv3_small_050 convnext_atto nf_regnet_b0
resnetv2_50x1_bit regnetx_002 repvgg_a0 ghostnet_050 dla34 skresnet18 ese_vovnet19b_dw cspresnet50
mixnet_s rexnet_100 edgenext_xx_small mobileone_s0 selecsls42 hardcorenas_a fbnetv3_b""".split()


def make(name):
    if name in SEGMENTATION:
        kinds = {"weights": None, "weights_backbone": None, "num_classes": 5}
        return torchvision.models.get_model(name, **kinds)
    if name in TORCHVISION:
        return torchvision.models.get_model(name, num_classes=7)
    return timm.create_model(name, num_classes=7)


@pytest.mark.parametrize("name", [*TORCHVISION, *SEGMENTATION, *TIMM])
def test_before_training_every_step_is_the_original_bit_for_bit(name):
    model = make(name).eval()
    before = copy.deepcopy(model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    net = fa_dfm.convert(model, hidden=2, image_size=(64, 64)).eval()
    with torch.no_grad():
        expected = model(images)
        expected = expected["out"] if isinstance(expected, dict) else expected
        unroll = net.unroll(images, steps=4)
    for logits in unroll.logits:
        assert torch.equal(logits, expected)
    assert 0 < net.field.height <= 64
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_with_a_frozen_backbone_training_leaves_the_first_step_and_cut_feedback_alone():
    model = torchvision.models.resnet18(num_classes=5).eval()
    net = fa_dfm.convert(model, hidden=4, image_size=(64, 64))
    net.model.requires_grad_(False)
    images, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.Adam(net.feedback.parameters(), 0.05)
    net.train()
    for _ in range(3):
        loss = nn.functional.cross_entropy(net(images, steps=3), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        expected = model(images)
        cut = net.unroll(images, steps=3, cut=True).logits
        looked = net.unroll(images, steps=3).logits
    assert torch.equal(looked[0], expected)
    assert (looked[2] - expected).abs().max() > 1e-3
    for logits in cut:
        assert torch.equal(logits, expected)


def test_a_loop_over_early_stages_drops_the_rest_and_labels_every_pixel():
    model = timm.create_model("resnet18d").eval()
    head = nn.Conv2d(128, 4, 1)
    net = fa_dfm.convert(model, loop=("layer1", "layer2"), head=head, image_size=(160, 192)).eval()
    assert not any("layer3" in name for name, _ in net.named_parameters())
    images = torch.rand(2, 3, 160, 192)
    with torch.no_grad():
        features = model.forward_intermediates(images, indices=[2], intermediates_only=True)[0]
        small = head(features)
        expected = nn.functional.interpolate(small, (160, 192), mode="bilinear")
        assert torch.equal(net(images, steps=3), expected)
    assert not net.field.covers


def test_the_receptive_field_is_that_of_its_convolutions():
    field = fa_dfm.convert(SmallView(depth=6), image_size=(32, 32), kind="multilabel").field
    assert (field.height, field.width) == (11, 11)  # five of six: the head comes after
    assert "bring in the rest" in str(field)
    field = fa_dfm.convert(SmallView(depth=40), image_size=(32, 32), kind="multilabel").field
    assert field.covers
    assert "expect nothing" in str(field)


def test_weights_that_start_at_zero_do_not_hide_what_a_step_sees():
    model = timm.create_model("resnet18d", zero_init_last=True)
    last = fa_dfm.convert(model, image_size=(96, 96)).field
    assert last.covers


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), {}, "no convolution"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 1)), {}, "2 groups"),
        (SmallView(channels=3), {"frontend": "blocks.0.1"}, "no convolution that the model runs"),
        (SmallView(channels=3), {"loop": "block"}, "makes no feature map.*blocks"),
        (SmallView(channels=3), {"head": nn.Conv2d(12, 2, 1)}, "needs loop="),
        (SmallView(channels=3), {"inject": "input"}, "'stem' is"),
        (SmallView(channels=3), {"hidden": -1}, "hidden=-1"),
        (SmallView(channels=3), {"steps": 0}, "steps=0"),
        (SmallView(channels=3), {"update": "forget"}, "replace, leaky, published"),
        (SmallView(channels=3), {"tau": 1.0}, "takes none"),
        (SmallView(channels=3), {"update": "leaky", "tau": -1.0}, "above 0"),
        (SmallView(channels=3), {"kind": "tokens"}, "kind='tokens'"),
    ],
)
def test_what_cannot_be_converted_is_named(model, options, said):
    with pytest.raises(FeedbackAdapterError, match=said):
        fa_dfm.convert(model, image_size=(16, 16), **options)


def test_another_convolution_can_be_the_frontend():
    model = SmallView(channels=3)
    net = fa_dfm.convert(model, frontend="blocks.0.0", image_size=(16, 16), kind="multilabel")
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(net.eval()(images), model.eval()(images))
