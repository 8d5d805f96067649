"""Pushed to a hub and loaded again: the same adapter; and whatever is wrong on the way is said."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from torch import nn

import feedback_adapter as fa
from feedback_adapter.checkpoint import find, read_config
from feedback_adapter.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # theirs
LABELS = ["cat", "dog", "snow"]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
FILES = {
    "README.md", "config.json", "feedback_adapter.json", "feedback_adapter.safetensors",
    "model.safetensors",
}  # fmt: skip


def made(seed: int, statistics: bool = True) -> fa.Adapter:
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    card = fa.Card(
        summary="Three things.", license="MIT", data={"source": "things"}, metrics={"test_map": 50},
        text=f"# Number {seed}\n",
    )  # fmt: skip
    adapter = fa.Adapter(
        model, {"output": fa.Output(LABELS)}, transform=fa.Transform((64, 64)), card=card,
        defaults=fa.Defaults("residual", ("layer3",), {"steps": 2}),
    )  # fmt: skip
    if statistics:
        adapter.fit_prior(torch.rand(9, 3), torch.rand(9, 3).round())
    return adapter


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")


def test_pushed_and_loaded_it_is_the_same(hub, token):
    adapter = made(1)
    url = adapter.push_to_hub("me/things")
    files = hub.files("me/things")
    assert url == f"{hub.url}/me/things/commit/{hub.refs['me/things']['main']}"
    assert files.keys() == FILES
    loaded = fa.load("hf-hub:me/things")
    assert loaded.card.name == "things"
    assert loaded.card.text == "# Number 1\n"
    assert loaded.transform == adapter.transform
    assert loaded.defaults == adapter.defaults
    told = fa.Labels({"cat": 1})
    adapter.priors = loaded.priors  # float16 now
    for strategy in ("residual", "posterior"):
        one, two = (a.refine(IMAGES, told, strategy=strategy) for a in (adapter, loaded))
        assert torch.equal(one.after, two.after)
    assert hub.cards[-1]["license"] == "mit"
    assert hub.cards[-1]["model-index"][0]["results"][0]["metrics"][0]["value"] == 50


def test_timm_loads_what_was_pushed(hub, token):
    adapter = made(1)
    adapter.push_to_hub("me/things")
    model = timm.create_model("hf-hub:me/things", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(model(IMAGES), adapter.predict(IMAGES))
    wrapped = fa.wrap("hf-hub:me/things", kind="multilabel")
    assert wrapped.labels == tuple(LABELS)
    assert torch.equal(wrapped.predict(IMAGES), adapter.predict(IMAGES))
    assert wrapped.transform == adapter.transform


def test_pushed_again_nothing_of_before_is_left(hub, token):
    made(1).push_to_hub("hf-hub:me/things")
    first = hub.refs["me/things"]["main"]
    hub.put("me/things", {**hub.files("me/things"), "photo.png": b"kept"})
    mine = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.warns(UserWarning, match="not how it is built"):
        fa.wrap(mine, labels=LABELS).push_to_hub("me/things", message="Another")
    assert hub.files("me/things").keys() == {
        "README.md", "feedback_adapter.json", "model.safetensors", "photo.png",
    }  # fmt: skip
    images = torch.randn(2, 3, 2, 2)
    loaded = fa.load("hf-hub:me/things", model=nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    assert torch.equal(loaded.predict(images), fa.wrap(mine, labels=LABELS).predict(images))
    old = fa.load(f"hf-hub:me/things@{first}")
    assert torch.equal(old.predict(IMAGES), made(1).predict(IMAGES))


def test_a_branch_and_a_private_repository(hub, token, monkeypatch):
    made(1).push_to_hub("me/things", private=True)
    made(2, statistics=False).push_to_hub("me/things@next")
    assert fa.load("hf-hub:me/things").card.text == "# Number 1\n"
    assert fa.load("hf-hub:me/things@next").card.text == "# Number 2\n"
    assert "feedback_adapter.safetensors" not in hub.files("me/things", "next")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "2")
    with pytest.raises(CheckpointError, match=r"no such repository.* if it is private, log in"):
        fa.load("hf-hub:me/things")


def test_who_may_not_push_is_told_so(hub, monkeypatch):
    adapter = made(1, statistics=False)
    for wrong in (None, "hf_wrong"):
        if wrong:
            monkeypatch.setenv("HF_TOKEN", wrong)
        with pytest.raises(CheckpointError, match=r"me/things: the checkpoint can't be .*log in"):
            adapter.push_to_hub("me/things")
    for name in ("me/a/b", "", "a b"):
        with pytest.raises(CheckpointError, match="names no repository"):
            adapter.push_to_hub(name)
    assert not hub.repos


def test_only_what_is_needed_is_fetched(hub, token):
    made(1).push_to_hub("me/things")
    hub.put("me/things", {**hub.files("me/things"), "pytorch_model.bin": b"never"})
    hub.asked.clear()
    folder = find("hf-hub:me/things")
    assert read_config(folder)["name"] == "things"
    assert {p.name for p in folder.iterdir()} == {"README.md", "feedback_adapter.json"}
    fa.load("hf-hub:me/things")
    got = [line.rpartition("/")[2] for line in hub.asked if line.startswith("GET /me/")]
    assert sorted(got) == sorted(FILES - {"config.json"})


def test_without_a_connection_what_was_fetched_is_used(hub, token, monkeypatch):
    made(1).push_to_hub("me/things")
    fa.load("hf-hub:me/things")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert fa.load("hf-hub:me/things").card.text == "# Number 1\n"
    with pytest.raises(CheckpointError, match=r"me/other: feedback_adapter.json can't be fetched"):
        fa.load("hf-hub:me/other")
    with pytest.raises(CheckpointError, match="the checkpoint can't be pushed"):
        made(1, statistics=False).push_to_hub("me/things")
    assert not hub.asked


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.write_text, (self.place, "run")


def test_what_is_damaged_cut_or_pickled_is_refused(hub, token, tmp_path):
    made(1).push_to_hub("me/good")
    good = hub.files("me/good")
    trap = pickle.dumps(Trap(tmp_path / "ran"))
    weights, extra = good["model.safetensors"], good["feedback_adapter.safetensors"]
    flipped = weights[:-1] + bytes([weights[-1] ^ 1])
    elsewhere = json.loads(good["feedback_adapter.json"])
    elsewhere["weights"]["file"] = "../../other.safetensors"
    cases = [
        ({"model.safetensors": trap}, r"model.safetensors has sha256 .* damaged"),
        ({"model.safetensors": flipped}, r"model.safetensors has sha256 .* damaged"),
        ({"model.safetensors": weights[:5000]}, r"model.safetensors has sha256 .* damaged"),
        ({"feedback_adapter.safetensors": extra[:-9]}, r"adapter.safetensors has sha256 .*damaged"),
        ({"feedback_adapter.json": trap}, r"feedback_adapter.json can't be read"),
        ({"feedback_adapter.json": b"{"}, r"feedback_adapter.json can't be read"),
        ({"feedback_adapter.json": json.dumps(elsewhere).encode()}, r"'weights.file' is not a key"),
        ({"model.safetensors": None}, r"model.safetensors can't be fetched: .* no such file"),
        ({"feedback_adapter.safetensors": None}, r"adapter.safetensors can't be fetched: .* no su"),
        ({"feedback_adapter.json": None}, r"feedback_adapter.json can't be fetched: .* no such"),
        ({"feedback_adapter.json": None, "pytorch_model.bin": trap}, r"json can't be fetched"),
    ]
    for number, (changes, said) in enumerate(cases):
        files = {**good, **changes}
        hub.put(f"me/bad{number}", {n: data for n, data in files.items() if data is not None})
        with pytest.raises(CheckpointError, match=said) as caught:
            fa.load(f"hf-hub:me/bad{number}")
        assert f"bad{number}" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert not any("pytorch_model" in line for line in hub.asked)


def test_a_page_that_is_missing_is_no_fault(hub, token):
    made(1).push_to_hub("me/things")
    hub.put("me/plain", {n: d for n, d in hub.files("me/things").items() if n != "README.md"})
    assert fa.load("hf-hub:me/plain").card.summary == "Three things."


def test_the_commands_take_it_through_hf_endpoint(hub, token, tmp_path):
    """In processes of their own, told of the hub as a user would tell them."""
    made(1).push_to_hub("me/things")
    photo = tmp_path / "photo.png"
    Image.fromarray((torch.rand(64, 64, 3) * 255).byte().numpy()).save(photo)
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "own")}
    command = [sys.executable, "-c", "from feedback_adapter.cli import main; main()"]

    def ran(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, *words], env=env, capture_output=True, text=True, timeout=120
        )

    told = ran("refine", str(photo), "--checkpoint", "hf-hub:me/things", "--know", "cat", "--json")
    assert told.returncode == 0, told.stderr
    expected = fa.load("hf-hub:me/things").refine([photo], fa.Labels({"cat": 1}))
    said = {p["label"]: p for p in json.loads(told.stdout)["images"][0]["predictions"]}
    for index, label in enumerate(LABELS[1:], 1):
        probability = float(expected.after[0, index].sigmoid())
        assert said[label]["after"] == pytest.approx(probability, abs=1e-4)
    failed = ran("labels", "hf-hub:me/none")
    assert failed.returncode != 0
    assert "hf-hub:me/none" in failed.stderr
    assert "Traceback" not in failed.stderr
