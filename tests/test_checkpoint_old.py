"""Checkpoints of format 1, whose config was config.json: read as before, and replaced whole."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError
from feedback_adapter.testing import LABELS


def old_form(folder: Path) -> Path:
    """A folder that `save` wrote, as an earlier version wrote it."""
    config = json.loads((folder / "feedback_adapter.json").read_text())
    (folder / "feedback_adapter.json").unlink()
    (folder / "config.json").unlink(missing_ok=True)
    page = (folder / "README.md").read_text().partition("\n---\n\n")[2]
    (folder / "README.md").unlink()
    (folder / "card.md").write_text(page)
    config["format"] = 1
    config["weights"] = {"file": "model.safetensors", **config["weights"]}
    if config.pop("statistics", None):
        tensors = load_file(folder / "feedback_adapter.safetensors")
        (folder / "feedback_adapter.safetensors").unlink()
        file = folder / "prior-output.safetensors"
        save_file({name.removeprefix("output."): t for name, t in tensors.items()}, file)
        sha = hashlib.sha256(file.read_bytes()).hexdigest()
        config["priors"] = {"output": {"file": file.name, "sha256": sha}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def made(seed: int) -> fa.Adapter:
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", num_classes=len(LABELS)).eval()
    card = fa.Card(name="old", text="# Old\n", metrics={"map": 1.0})
    adapter = fa.Adapter(model, {"output": fa.Output(LABELS)}, card=card)
    adapter.fit_prior(torch.rand(9, len(LABELS)), torch.rand(9, len(LABELS)).round())
    return adapter


@pytest.fixture
def old(tmp_path) -> Path:
    return old_form(made(0).save(tmp_path / "old"))


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_it_loads(old):
    adapter, expected = fa.load(old), made(0)
    assert adapter.card.text == "# Old\n"
    assert adapter.card.metrics == {"map": 1.0}
    images, told = torch.randn(2, 3, 64, 64), fa.Labels({LABELS[0]: 1})
    result = adapter.refine(images, told)
    assert result.strategy == "posterior"
    expected.priors = adapter.priors  # that of `made` was drawn, and never float16
    assert torch.equal(result.after, expected.refine(images, told).after)


def test_saved_over_it_is_replaced_whole(old):
    adapter = made(1)
    adapter.save(old)
    names = {path.name for path in old.iterdir()}
    assert names == {
        "README.md", "config.json", "feedback_adapter.json", "feedback_adapter.safetensors",
        "model.safetensors",
    }  # fmt: skip
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(fa.load(old).predict(images), adapter.predict(images))
    assert json.loads((old / "config.json").read_text())["architecture"] == "test_resnet"


@pytest.mark.parametrize("stop", ["README.md", "feedback_adapter.json", "model.safetensors"])
def test_stopped_on_the_way_it_is_the_old_one_or_the_new_one(old, monkeypatch, stop):
    real, images = Path.replace, torch.randn(1, 3, 64, 64)
    possible = [adapter.predict(images) for adapter in (made(0), made(1))]

    def stopped(self: Path, target: Path) -> Path:
        if Path(target).name == stop:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(1).save(old)
    found = fa.load(old).predict(images)
    assert any(torch.equal(found, one) for one in possible)
    made(1).save(old)
    assert torch.equal(fa.load(old).predict(images), possible[1])
    assert len(list(old.iterdir())) == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": {"file": "../m.safetensors", "sha256": "0" * 64, "dtype": "float16"}},
         "'weights.file' is .*plain name"),
        ({"weights": {"file": "/x/m.safetensors", "sha256": "0" * 64, "dtype": "float16"}},
         "'weights.file' is .*plain name"),
        ({"weights": {"file": "a\\b.safetensors", "sha256": "0" * 64, "dtype": "float16"}},
         "'weights.file' is .*plain name"),
        ({"weights": {"file": "model.bin", "sha256": "0" * 64, "dtype": "float16"}},
         "'weights.file' is .*plain name"),
        ({"weights": {"sha256": "0" * 64, "dtype": "float16"}}, r"lacks \['weights.file'\]"),
        ({"priors": None}, "'priors' is None: it must be an object"),
        ({"priors": {"x": {"file": "p.safetensors", "sha256": "0" * 64}}},
         "'x', which is no output"),
        ({"statistics": {"sha256": "0" * 64}}, "'statistics' is not a key"),
        ({"format": 2}, "config.json has format 2; this version reads 1"),
    ],
)  # fmt: skip
def test_its_keys_are_checked(old, changes, said):
    edit(old, **changes)
    with pytest.raises(CheckpointError, match=said):
        fa.load(old)


def test_damaged_files_are_named(old):
    for name in ("prior-output.safetensors", "model.safetensors"):
        good = (old / name).read_bytes()
        (old / name).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=rf"{name} has sha256 .* damaged"):
            fa.load(old)
        (old / name).write_bytes(good)


def test_a_config_of_timms_is_told_apart(old, tmp_path):
    (old / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 4}))
    with pytest.raises(CheckpointError, match=r"config.json of timm's: .*wrap\('local-dir:"):
        fa.load(old)
    with pytest.raises(CheckpointError, match=r"holds a config.json of something else"):
        made(1).save(old)
