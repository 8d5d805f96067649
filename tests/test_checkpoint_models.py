"""Checkpoints of models that the user builds: torchvision's, their own, tied weights."""

import json

import pytest
import torch
import torchvision
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError
from feedback_adapter.testing import LABELS, TinyNet, tiny_images

pytestmark = pytest.mark.filterwarnings("ignore:.* holds the weights of a .*, but not how")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shufflenet_v2_x0_5", {}),
        ("mobilenet_v3_small", {}),
        ("resnet18", {"zero_init_residual": True}),
        ("squeezenet1_1", {}),
    ],
)
def test_torchvision_is_built_again_by_itself(tmp_path, name, arguments):
    model = torchvision.models.get_model(name, num_classes=4, **arguments).eval()
    adapter = fa.wrap(model, labels=LABELS, kind="multiclass")
    loaded = fa.load(adapter.save(tmp_path / "yes"))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.predict(images), adapter.predict(images))
    assert loaded.outputs["output"].kind == "multiclass"
    assert loaded.card.architecture.library == "torchvision"
    assert loaded.card.architecture.model == name


def test_the_architecture_that_is_given_must_build_the_model(tmp_path):
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=4).eval()
    adapter = fa.wrap(model, labels=LABELS, kind="multiclass")
    with pytest.raises(CheckpointError, match=r"builds another model.*Pass save\(.*Architecture"):
        adapter.save(tmp_path / "no", architecture=fa.Architecture("timm", "test_resnet"))
    assert not list(tmp_path.iterdir())


def test_a_model_of_ones_own(tmp_path):
    adapter = fa.wrap(TinyNet(seed=3), labels=LABELS)
    with pytest.warns(UserWarning, match=r"weights of a TinyNet.*load\(folder, model=yours\)"):
        folder = adapter.save(tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"only you can build: load\(\.\.\., model=yours\)"):
        fa.load(folder)
    loaded = fa.load(folder, model=TinyNet(seed=4))
    assert torch.equal(loaded.predict(tiny_images(2)), adapter.predict(tiny_images(2)))
    with pytest.raises(CheckpointError, match=r"weights of .* don't fit the model"):
        fa.load(folder, model=TinyNet(labels=5))


@pytest.mark.parametrize("act", [nn.GELU, nn.LeakyReLU, nn.ReLU])
def test_a_model_that_the_weights_fit_but_that_computes_something_else_is_named(tmp_path, act):
    def build(act):
        return nn.Sequential(nn.Conv2d(3, 8, 3), act(), nn.Flatten(), nn.LazyLinear(4))

    torch.manual_seed(0)
    model, images = build(nn.ReLU), torch.randn(2, 3, 32, 32)
    model(images)
    adapter = fa.wrap(model, labels=LABELS)
    folder = adapter.save(tmp_path / "own")
    other = build(act)
    other(images)
    if act is nn.ReLU:
        assert torch.equal(fa.load(folder, model=other).predict(images), adapter.predict(images))
        for dtype in (torch.float64, torch.bfloat16):
            assert fa.load(folder, model=other.to(dtype)).labels == LABELS
        return
    with pytest.raises(
        CheckpointError, match=r"isn't the model that was saved: .* 32x32, 'output'"
    ):
        fa.load(folder, model=other)


def test_the_image_that_models_are_compared_with_is_small_whatever_a_config_says(tmp_path):
    folder = fa.wrap(TinyNet(seed=3), labels=LABELS).save(tmp_path / "own")
    config = json.loads((folder / "feedback_adapter.json").read_text())
    for key, value in {"size": [8192, 8192], "values": {"output": [0.0] * 65}}.items():
        changed = {**config, "returned": {**config["returned"], key: value}}
        (folder / "feedback_adapter.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=f"'returned.{key}' is .* it must be"):
            fa.load(folder, model=TinyNet(seed=3))


def test_several_outputs_come_back(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = TinyNet(2, seed=1), TinyNet(3, seed=2)

        def forward(self, x):
            return {"a": self.a(x), "rest": [self.b(x)]}

    outputs = {
        "tags": fa.Output(("dog", "ball"), select="a"),
        "scene": fa.Output(("sea", "city", "hill"), "multiclass", select="rest.0"),
    }
    adapter = fa.wrap(Two(), outputs=outputs)
    loaded = fa.load(adapter.save(tmp_path / "two"), model=Two())
    assert loaded.outputs == outputs
    there, here = loaded.predict(tiny_images(2)), adapter.predict(tiny_images(2))
    assert torch.equal(there["scene"], here["scene"])
    assert torch.equal(there["tags"], here["tags"])


def test_tied_weights_and_other_dtypes(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = TinyNet()
            self.again = self.net.again

        def forward(self, x):
            return self.net(x)

    adapter = fa.wrap(Tied().double(), labels=LABELS)
    loaded = fa.load(adapter.save(tmp_path / "tied"), model=Tied())
    assert next(loaded.model.parameters()).dtype == torch.float64
    images = tiny_images(2).double()
    assert torch.equal(loaded.predict(images), adapter.predict(images))
