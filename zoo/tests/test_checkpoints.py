"""Every checkpoint of the zoo, loaded and saved again, is what it was."""

import json
from pathlib import Path

import pytest
import timm
import torch

import feedback_adapter as fa
from feedback_adapter.checkpoint import read_config
from feedback_adapter_zoo import CHECKPOINTS

FOLDERS = sorted(path.parent for path in CHECKPOINTS.glob("*/feedback_adapter.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_saved_again_it_keeps_every_key_every_weight_and_its_page(folder: Path, tmp_path: Path):
    saved = fa.load(folder.name).save(tmp_path / "again")
    before, after = read_config(folder), read_config(saved)
    noted, again = (config.pop("returned", None) for config in (before, after))
    if noted is not None:  # computed again, on this machine
        assert again["size"] == noted["size"]
        values = pytest.approx(noted["values"]["output"], rel=1e-3, abs=1e-4)
        assert again["values"]["output"] == values
    assert before == {key: after[key] for key in before}
    assert set(after) - set(before) <= {"refine"}
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in saved.iterdir())
    for name in names:
        if name.endswith((".safetensors", ".md")):
            assert (saved / name).read_bytes() == (folder / name).read_bytes()
    assert fa.load(saved).card == fa.load(folder).card


def test_all_of_them_are_listed():
    assert len(FOLDERS) == 22
    for folder in FOLDERS:
        config = json.loads((folder / "feedback_adapter.json").read_text("utf-8"))
        assert config["name"] == folder.name


@pytest.mark.parametrize("name", ["caption-words-lite0", "coco80-lite0", "imagenet-lite0"])
def test_timm_loads_the_same_folders(name: str):
    adapter = fa.load(name)
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    model = timm.create_model(f"local-dir:{CHECKPOINTS / name}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(model(images), adapter.predict(images))
    assert tuple(model.pretrained_cfg["label_names"]) == adapter.labels
    assert fa.wrap(model).transform == adapter.transform
