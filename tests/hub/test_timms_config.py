"""A saved folder that timm loads as well, where timm can build the model; and its page."""

import dataclasses
import json
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from torch import nn

import feedback_adapter as fa

LABELS = ["cat", "dog", "snow"]


def timms(folder) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize(
    ("name", "kwargs", "size"),
    [
        ("test_resnet", {}, (48, 64)),
        ("test_resnet", {"in_chans": 1, "act_layer": "silu", "output_stride": 16}, (48, 64)),
        ("test_vit", {"img_size": 96, "class_token": False, "global_pool": "avg"}, (96, 96)),
        ("test_vit", {}, (128, 128)),  # photos of another size than the network's
        ("test_efficientnet", {"drop_path_rate": 0.1}, (64, 64)),
        ("test_byobnet", {}, (64, 64)),
    ],
)
def test_timm_loads_the_same_folder(tmp_path, name, kwargs, size):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **kwargs)
    if name != "test_vit":
        with torch.no_grad():  # batch norm statistics of its own
            model.train()(torch.randn(8, kwargs.get("in_chans", 3), 64, 64))
    transform = fa.Transform(size, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    adapter = fa.wrap(model.eval(), labels=LABELS, transform=transform)
    adapter.fit_prior(torch.rand(9, 3), torch.rand(9, 3).round())
    before = torch.get_rng_state()
    folder = adapter.save(tmp_path / "saved")
    assert torch.equal(torch.get_rng_state(), before)
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "feedback_adapter.json", "feedback_adapter.safetensors",
        "model.safetensors",
    }  # fmt: skip
    again = timms(folder)
    size = (160, 160) if name == "test_vit" and not kwargs else (96, 96)
    images = torch.randn(2, kwargs.get("in_chans", 3), *size)
    with torch.no_grad():
        assert torch.equal(again(images), adapter.predict(images))
        assert torch.equal(fa.load(folder).predict(images), adapter.predict(images))
    assert again.pretrained_cfg["label_names"] == LABELS
    if kwargs.get("in_chans", 3) == 3 and name != "test_vit":
        assert fa.wrap(f"local-dir:{folder}").transform == transform
        config = timm.data.resolve_model_data_config(again)
        photo = torchvision.transforms.ToPILImage()(torch.rand(3, 90, 120))
        theirs = timm.data.create_transform(**config, is_training=False)(photo)
        torch.testing.assert_close(theirs, transform(photo), atol=0.02, rtol=0)


def test_folders_that_timm_could_not_load_have_no_config_of_timms(tmp_path):
    own = torchvision.models.squeezenet1_1(num_classes=3)
    with pytest.warns(UserWarning, match="not how it is built"):
        mine = fa.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), labels=LABELS).save(
            tmp_path / "mine"
        )
    folders = [mine, fa.wrap(own.eval(), labels=LABELS).save(tmp_path / "torchvision")]
    for folder in folders:
        assert not (folder / "config.json").exists()
    net = timm.create_model("test_resnet", num_classes=3).eval()
    folder = fa.wrap(net, labels=LABELS).save(tmp_path / "torchvision")  # over another's
    assert (folder / "config.json").exists()
    fa.wrap(own.eval(), labels=LABELS).save(folder)
    assert not (folder / "config.json").exists()
    assert fa.load(folder).predict(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    "stop", ["README.md", "feedback_adapter.json", "model.safetensors", "config.json", "model-"]
)
def test_timm_never_finds_its_config_beside_other_weights(tmp_path, monkeypatch, stop):
    """Stopped on the way, a save leaves a folder that timm refuses, or loads as `load` does."""
    adapters = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = timm.create_model("test_resnet", num_classes=3).eval()
        adapters.append(fa.wrap(model, labels=LABELS))
    folder = adapters[0].save(tmp_path / "net")
    real = Path.replace

    def stopped(self: Path, target: Path) -> Path:
        if Path(target).name.startswith(stop):
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            adapters[1].save(folder)
    images = torch.randn(1, 3, 64, 64)
    if (folder / "config.json").exists():
        with torch.no_grad():
            assert torch.equal(timms(folder)(images), fa.load(folder).predict(images))
    else:
        with pytest.raises(FileNotFoundError, match="Config file not found"):
            timms(folder)
    adapters[1].save(folder)
    with torch.no_grad():
        assert torch.equal(timms(folder)(images), adapters[1].predict(images))


def test_float16_is_one_file_for_both(tmp_path):
    model = timm.create_model("test_resnet", num_classes=3).half().float().eval()
    card = fa.Card(dtype="float16")
    adapter = fa.Adapter(model, {"output": fa.Output(LABELS)}, card=card)
    folder = adapter.save(tmp_path / "half")
    config = json.loads((folder / "feedback_adapter.json").read_text())
    assert config["weights"]["dtype"] == "float16"
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(timms(folder)(images), adapter.predict(images))


def test_the_page_has_the_hubs_header_and_comes_back_as_it_was(tmp_path):
    text = "---\nA rule first.\n\n---\n\n# A title\n\n| a | b |\n"
    card = fa.Card(
        name="birds", summary="Birds: 'two' kinds.", license="Photos: ask\n---\nfirst",
        data={"source": "birds-525", "images": {"train": 3}}, text=text,
        metrics={"dev_map": 12.5, "test": {"F1, nothing known": 40, "ece": 0.1}, "note": "none"},
    )  # fmt: skip
    model = timm.create_model("test_resnet", num_classes=3).eval()
    adapter = fa.Adapter(model, {"output": fa.Output(LABELS)}, card=card)
    folder = adapter.save(tmp_path / "birds")
    assert fa.load(folder).card.text == text
    data = huggingface_hub.ModelCard.load(folder / "README.md").data
    assert data.library_name == "feedback_adapter"
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["feedback_adapter", "timm", "multilabel"]
    assert (data.license, data.license_name) == ("other", card.license)
    assert data.datasets == ["birds-525"]
    assert data.metrics == ["map", "f1-nothing-known", "ece"]
    found = [(r.dataset_split, r.metric_name, r.metric_value) for r in data.eval_results]
    assert found == [("dev", "map", 12.5), ("test", "F1, nothing known", 40), ("test", "ece", 0.1)]
    assert data.model_name == "birds"
    again = fa.load(folder).save(tmp_path / "again")
    assert (again / "README.md").read_bytes() == (folder / "README.md").read_bytes()


def test_a_page_without_a_text_follows_the_card(tmp_path):
    model = timm.create_model("test_resnet", num_classes=3).eval()
    card = fa.Card(summary="Old.", license="Apache-2.0")
    card = dataclasses.replace(card, data={"source": "my own photos"}, metrics={"f1": 1})
    adapter = fa.Adapter(model, {"output": fa.Output(LABELS)}, card=card)
    folder = adapter.save(tmp_path / "net")
    data = huggingface_hub.ModelCard.load(folder / "README.md").data
    assert "datasets" not in data.to_dict()  # a hub would refuse such a name
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("my-own-photos", "my own photos")
    page = (folder / "README.md").read_text()
    assert page.endswith("---\n\n# net\n\nOld.\n")
    assert "license: apache-2.0\n" in page
    loaded = fa.load(folder)
    assert loaded.card.text == ""
    loaded.card = fa.Card(name="net", summary="New.")
    assert loaded.save(folder).joinpath("README.md").read_text().endswith("# net\n\nNew.\n")
