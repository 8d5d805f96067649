"""`wrap` of what timm has saved, on a hub and in a folder: the same model, and nothing else."""

import json
import pickle
import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from timm.models import save_for_hf

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError, ModelError

LABELS = ["cat", "dog", "snow"]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.write_text, (self.place, "run")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=3).eval()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """What timm's own exporter writes."""
    place = tmp_path / "timm's"
    save_for_hf(model, place, model_config={"label_names": LABELS}, safe_serialization=True)
    return place


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        part = config
        *path, last = key.split("__")
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder(folder, model):
    adapter = fa.wrap(f"local-dir:{folder}")
    assert adapter.labels == tuple(LABELS)
    assert adapter.outputs["output"].kind == "multiclass"
    assert not adapter.model.training
    with torch.no_grad():
        assert torch.equal(adapter.predict(IMAGES), model(IMAGES))
    assert adapter.transform == fa.wrap(model, labels=LABELS).transform
    other = fa.wrap(f"local-dir:{folder}", labels=["a", "b", "c"], kind="multilabel")
    assert other.labels == ("a", "b", "c")
    moved = other.refine(IMAGES, fa.Labels({"a": 1})).after - other.predict(IMAGES)
    assert float(moved.abs().max()) > 0


def test_timms_own_fixed_arguments(tmp_path):
    made = timm.create_model("test_vit", num_classes=3, img_size=96, class_token=False,
                             global_pool="avg", in_chans=1).eval()  # fmt: skip
    save_for_hf(made, tmp_path / "vit", safe_serialization=True)
    adapter = fa.wrap(f"local-dir:{tmp_path / 'vit'}", labels=LABELS)
    images = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        assert torch.equal(adapter.predict(images), made(images))


def test_from_the_hub(hub, folder, model):
    first = hub.put("me/net", {**{p.name: p.read_bytes() for p in folder.iterdir()},
                               "pytorch_model.bin": b"never asked for"})  # fmt: skip
    adapter = fa.wrap("hf-hub:me/net")
    assert adapter.labels == tuple(LABELS)
    with torch.no_grad():
        assert torch.equal(adapter.predict(IMAGES), model(IMAGES))
    got = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
    assert got == {"config.json", "model.safetensors"}
    edit(folder, label_names=["x", "y", "z"])
    hub.put("me/net", folder)
    assert fa.wrap("hf-hub:me/net").labels == ("x", "y", "z")
    assert fa.wrap(f"hf-hub:me/net@{first}").labels == tuple(LABELS)
    hub.put("me/net", folder, branch="feature/new")
    assert fa.wrap("hf-hub:me/net@feature/new").labels == ("x", "y", "z")


def test_without_a_connection_the_cache_is_used(hub, folder, monkeypatch):
    hub.put("me/net", folder)
    fa.wrap("hf-hub:me/net")
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fa.wrap("hf-hub:me/net").labels == tuple(LABELS)
    with pytest.raises(
        CheckpointError,
        match=r"me/other: .* since http.* can't be reached",
    ):
        fa.wrap("hf-hub:me/other")
    assert len(hub.asked) == asked


def test_a_hub_that_cannot_be_reached_is_an_error_at_once(hub, folder, monkeypatch):
    hub.put("me/net", folder)
    fa.wrap("hf-hub:me/net")
    template = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"  # nobody is there
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"since .* can't be reached .* ConnectError"):
        fa.wrap("hf-hub:me/other")
    with pytest.raises(CheckpointError, match="ConnectError.* Or give a file: --weights FILE"):
        fa.pretrained("test_resnet")
    assert time.monotonic() - start < 10, "the client's own tries take a minute"
    assert fa.wrap("hf-hub:me/net").labels == tuple(LABELS), "what is in the cache is used"


def test_imagenets_classes_of_timms_own_repositories(tmp_path):
    """A config as timm's hub repositories have them: no label names, but a tag."""
    made = timm.create_model("test_resnet", num_classes=1000)
    save_for_hf(made, tmp_path / "own", safe_serialization=True)
    edit(tmp_path / "own", pretrained_cfg__tag="r160_in1k")
    assert fa.wrap(f"local-dir:{tmp_path / 'own'}").labels[1] == "goldfish"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "hf-hub:me/none",
            r"hf-hub:me/none: config.json .* no such repository",
        ),
        (
            "hf-hub:me/net@v9",
            r"hf-hub:me/net@v9: config.json .* no revision 'v9'",
        ),
        (
            "hf-hub:me/empty",
            r"me/empty: config.json .* has no such file",
        ),
        (
            "hf-hub:me/pickled",
            r"me/pickled@\w+: model.safetensors .* has no such file",
        ),
        ("hf-hub:me/secret", r"me/secret: .* no such repository.* if it is private, log in"),
        ("hf-hub:me/gated", r"me/gated: config.json can't be fetched before you accept its terms"),
        ("hf-hub:me/a/b", r"'hf-hub:me/a/b' names no repository: write hf-hub:owner/name"),
        ("hf-hub:", r"names no repository"),
        ("hf-hub:me/cut", r"me/cut: config.json can't be fetched .http.*RemoteProtocol"),
    ],
)
def test_what_a_hub_refuses(hub, folder, tmp_path, name, said):
    hub.put("me/net", folder)
    hub.put("me/empty", {"README.md": b""})
    config = (folder / "config.json").read_bytes()
    trap = pickle.dumps(Trap(tmp_path / "ran"))
    hub.put("me/pickled", {"config.json": config, "pytorch_model.bin": trap})
    hub.put("me/secret", folder)
    hub.put("me/gated", folder)
    hub.put("me/cut", folder)
    hub.private.add("me/secret")
    hub.gated.add("me/gated")
    if name.endswith("cut"):
        hub.cut["config.json"] = 20
    with pytest.raises(CheckpointError, match=said):
        fa.wrap(name)
    assert not (tmp_path / "ran").exists()
    assert not any("pytorch_model" in line for line in hub.asked)


def test_a_token_opens_what_is_private(hub, folder, monkeypatch):
    hub.put("me/secret", folder)
    hub.private.add("me/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    assert fa.wrap("hf-hub:me/secret").labels == tuple(LABELS)


def test_pickled_weights_are_refused(folder, tmp_path):
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    trap = pickle.dumps(Trap(tmp_path / "ran"))
    name = f"local-dir:{folder}"
    for pickled in ("pytorch_model.bin", "model.pth", "other.pt"):
        (folder / pickled).write_bytes(trap)
        weights.unlink()
        with pytest.raises(CheckpointError, match=rf"no model.safetensors. {pickled} is pickled"):
            fa.wrap(name)
        weights.write_bytes(good)
        assert fa.wrap(name).labels == tuple(LABELS)  # beside safetensors it is left alone
        (folder / pickled).unlink()
    weights.write_bytes(trap)  # under another name
    with pytest.raises(CheckpointError, match=r"model.safetensors can't be read"):
        fa.wrap(name)
    torch.save({"conv1.weight": torch.zeros(1)}, weights)
    with pytest.raises(CheckpointError, match=r"model.safetensors can't be read"):
        fa.wrap(name)
    assert not (tmp_path / "ran").exists()


def test_damaged_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    for damaged in (b"", good[:7], good[:1000], good[:-1], good + b"more", b"\xff" * 64):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model.safetensors can't be read"):
            fa.wrap(f"local-dir:{folder}")
    other = timm.create_model("test_resnet", num_classes=5)
    save_for_hf(other, folder.parent / "other", safe_serialization=True)
    weights.write_bytes((folder.parent / "other" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"(?s)timm can't build its model: .*size mismatch"):
        fa.wrap(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "os.system"}, "timm can't build 'os.system'"),
        ({"architecture": "hf-hub:me/other"}, "timm can't build 'hf-hub:me/other'"),
        ({"architecture": None}, "timm can't build None"),
        ({"architecture": {"library": "timm"}}, "feedback_adapter.load reads it"),
        ({"pretrained_cfg": 5}, "'pretrained_cfg' is 5: it must be an object"),
        ({"model_args": [1]}, r"'model_args' is \[1\]: it must be an object"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "checkpoint_path is not possible"),
        ({"model_args": {"pretrained_cfg_overlay": {}}}, "overlay is not possible"),
        ({"model_args": {"cache_dir": "/tmp"}}, "cache_dir is not possible"),
        ({"model_args": {"act_layer": "os/system"}}, "act_layer='os/system' is not possible"),
        ({"model_args": {"block": {"a": 1}}}, "block=.* is not possible"),
        ({"model_args": {"stem_width": 10**9}}, "stem_width=1000000000 is not possible"),
        ({"model_args": {"stem_width": 10**6}}, "far more memory or parts than the weights"),
        ({"pretrained_cfg__input_size": [3, 10**6, 10**6]}, "input_size"),
        ({"pretrained_cfg__input_size": "big"}, "input_size"),
        ({"pretrained_cfg__surprise": 1}, "timm can't build its model: TypeError"),
        ({"num_classes": 10**9}, "num_classes"),
        ({"num_classes": 7}, "num_classes"),
        ({"model_args": {"num_classes": 7}}, "num_classes"),
    ],
)
def test_a_config_is_only_data(folder, changes, said):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=said) as caught:
        fa.wrap(f"local-dir:{folder}")
    assert "config.json" in str(caught.value) or "timm's" in str(caught.value)


def test_a_config_names_no_other_place(hub, folder, model):
    """Keys of timm's that say where weights are mean nothing: the ones beside it are loaded."""
    hub.put("me/elsewhere", folder)
    edit(folder, pretrained_cfg__url="http://127.0.0.1:9/x.bin", pretrained_cfg__file="/etc/passwd",
         pretrained_cfg__hf_hub_id="me/elsewhere", pretrained_cfg__hf_hub_filename="x.bin",
         pretrained_cfg__custom_load=True, pretrained_cfg__source="hf-hub")  # fmt: skip
    hub.put("me/net", folder)
    for name in (f"local-dir:{folder}", "hf-hub:me/net"):
        with torch.no_grad():
            assert torch.equal(fa.wrap(name).predict(IMAGES), model(IMAGES))
    assert not any("elsewhere" in line for line in hub.asked)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "can't be read"), ("[]", "holds a list"), ('{"a": NaN}', "NaN is no number of JSON"),
     ("{" * 100_000, "can't be read"), ("\udcff", "can't be read")],
)  # fmt: skip
def test_damaged_configs_are_refused(folder, text, said):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=rf"config.json {said}|config.json.*{said}"):
        fa.wrap(f"local-dir:{folder}")


def test_wrong_names(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such folder"):
        fa.wrap(f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(CheckpointError, match=r"no config.json: timm has saved no model there"):
        fa.wrap(f"local-dir:{tmp_path}")
    with pytest.raises(ModelError, match=r"model is 'resnet18': .*hf-hub:owner/name"):
        fa.wrap("resnet18")
