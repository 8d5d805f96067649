"""What `load` builds again returns what was saved, or `save` refuses."""

import json

import pytest
import timm
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.checkpoint.outline import facts_of, outline_of
from feedback_adapter.checkpoint.rebuild import recover
from feedback_adapter.errors import CheckpointError

LABELS = ("a", "b", "c")
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 2}


def made(name: str, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3, **arguments).eval()


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("test_resnet", {"global_pool": "max"}, 64),
        ("resnet10t", {"act_layer": "leaky_relu"}, 64),
        ("resnet10t", {"output_stride": 8, "in_chans": 1}, 64),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True, **SMALL}, 64),
        ("vit_tiny_patch16_224", {"img_size": (64, 96), **SMALL}, (64, 96)),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", **SMALL}, 224),
    ],
)
def test_arguments_of_timm_are_kept(tmp_path, name, arguments, size):
    adapter = fa.wrap(made(name, **arguments), labels=LABELS)
    state = torch.get_rng_state()
    loaded = fa.load(adapter.save(tmp_path / "kept"))
    assert torch.equal(torch.get_rng_state(), state)
    size = (size, size) if isinstance(size, int) else size
    images = torch.rand(2, arguments.get("in_chans", 3), *size)
    assert torch.equal(loaded.predict(images), adapter.predict(images))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"stem_type": "deep", "stem_width": 32, "avg_down": True}),
        ("resnet18", {"norm_layer": "groupnorm"}),
        ("vit_tiny_patch16_224", {"num_heads": 6, "reg_tokens": 4}),
        ("vit_tiny_patch16_224", {"init_values": 0.1, "mlp_ratio": 2, "no_embed_class": True}),
        ("swin_tiny_patch4_window7_224", {"img_size": 128, "window_size": 4}),
        ("tf_efficientnet_lite0", {"act_layer": "silu", "global_pool": "catavgmax", "in_chans": 4}),
        ("convnext_atto", {"output_stride": 8, "global_pool": "max"}),
        ("regnetx_002", {"output_stride": 16, "drop_rate": 0.3}),
    ],
)
def test_arguments_are_found_by_the_parts_of_the_model(name, arguments):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3, **arguments)
    found = recover(model, labels=3)
    with torch.device("meta"):
        assert facts_of(found.build()) == facts_of(model)


def _exchanged_activation() -> nn.Module:
    model = made("test_resnet")
    model.act1 = nn.Tanh()
    return model


def _hooked() -> nn.Module:
    model = made("test_resnet")
    model.fc.register_forward_hook(lambda module, args, out: out + 1)
    return model


def _other_eps() -> nn.Module:
    model = made("test_resnet")
    model.bn1.eps = 0.1
    return model


def _head_of_two_layers() -> nn.Module:
    model = made("test_resnet")
    model.fc = nn.Sequential(nn.Linear(model.num_features, 8), nn.ReLU(), nn.Linear(8, 3))
    return model


def _overridden_forward() -> nn.Module:
    model = made("test_resnet")
    forward = model.forward
    model.forward = lambda x: 2 * forward(x)
    return model


@pytest.mark.parametrize(
    "change",
    [_exchanged_activation, _hooked, _other_eps, _head_of_two_layers, _overridden_forward],
)
def test_what_would_be_built_differently_is_refused_and_leaves_nothing(tmp_path, change):
    model = change()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"(?s)builds another model.*Architecture.*module of"):
        fa.wrap(model, labels=LABELS).save(tmp_path / "changed")
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_whose_head_was_exchanged_is_built_with_the_right_number_of_classes(tmp_path):
    model = timm.create_model("test_resnet").eval()
    model.fc = nn.Linear(model.num_features, 3)
    adapter = fa.wrap(model, labels=LABELS)
    images = torch.rand(2, 3, 64, 64)
    loaded = fa.load(adapter.save(tmp_path / "head"))
    assert torch.equal(loaded.predict(images), adapter.predict(images))


def test_another_memory_layout_is_no_difference(tmp_path):
    model = made("resnet10t").to(memory_format=torch.channels_last)
    loaded = fa.load(fa.wrap(model, labels=LABELS).save(tmp_path / "last"))
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(loaded.predict(images), model(images), atol=1e-5)


def test_a_model_in_training_mode_stays_so(tmp_path):
    model = made("test_resnet").train()
    running = model.bn1.running_mean.clone()
    fa.wrap(model, labels=LABELS).save(tmp_path / "training")
    assert all(module.training for module in model.modules())
    assert torch.equal(model.bn1.running_mean, running)


# ---- sizes are checked before memory is taken ----


@pytest.mark.parametrize(
    "changes",
    [
        {"img_size": 1_000_000, "class_token": False},
        {"depth": 100_000},
        {"embed_dim": 1_000_000},
        {"num_classes": 1_000_000},
        {"mlp_ratio": 100_000.0},
    ],
)
def test_a_config_cannot_make_load_take_memory(tmp_path, changes):
    folder = fa.wrap(made("vit_tiny_patch16_224", **SMALL), labels=LABELS).save(tmp_path / "big")
    config = json.loads((folder / "feedback_adapter.json").read_text())
    config["architecture"]["kwargs"] |= changes
    (folder / "feedback_adapter.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"far more memory|don't fit the model|can't build"):
        fa.load(folder)


def test_an_outline_takes_no_memory():
    def build() -> nn.Module:
        return nn.Linear(1_000_000, 1_000_000)

    assert outline_of(build, 10**12, 2).weight.is_meta
    with pytest.raises(CheckpointError, match="far more memory"):
        outline_of(build, 10**9, 2)
