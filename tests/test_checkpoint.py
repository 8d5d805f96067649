"""Checkpoints: the same answers in a fresh process, and nothing that isn't what it says."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError
from feedback_adapter.plugins import scoped
from feedback_adapter.testing import LABELS

PACKAGE = Path(fa.__file__).parent
TOLD = fa.Labels({"cat": 1, "snow": [0, None]})
TRANSFORM = fa.Transform((48, 64), "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
REFINE = """
import dataclasses, json, sys, torch, feedback_adapter as fa
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
adapter = fa.load(sys.argv[1])
told = fa.Labels({"cat": 1, "snow": [0, None]})
result = adapter.refine(load_file(sys.argv[2])["images"], told)
save_file({name: getattr(result, name) for name in ("before", "after", "losses")}, sys.argv[3])
print(json.dumps(dataclasses.asdict(adapter.transform)))
"""


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=4)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 64, 64))  # batch norm statistics of its own
    return model.eval()


@pytest.fixture
def saved(resnet, tmp_path) -> Path:
    return fa.wrap(resnet, labels=LABELS, transform=TRANSFORM).save(tmp_path / "saved")


def edit(folder: Path, **changes) -> None:
    """Change parts of a config; `...` leaves one out."""
    config = {**json.loads((folder / "feedback_adapter.json").read_text()), **changes}
    config = {key: value for key, value in config.items() if value is not ...}
    (folder / "feedback_adapter.json").write_text(json.dumps(config))


def rewrite(folder: Path, tensors: dict[str, torch.Tensor], dtype: str) -> None:
    """Exchange the weights, with a sha256 that fits."""
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    sha = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit(folder, weights={"sha256": sha, "dtype": dtype})


def test_same_answers_bit_for_bit_in_a_fresh_process(resnet, tmp_path):
    defaults = fa.Defaults(
        "layerwise", ("layer2", "layer4"), {"steps": 4, "step_size": 0.05, "proximal": 1e-3}
    )
    adapter = fa.Adapter(
        resnet, {"output": fa.Output(LABELS)}, transform=TRANSFORM, defaults=defaults
    )
    images = torch.randn(2, 3, 64, 64)
    adapter.save(tmp_path / "saved")
    names = ("saved", "images.safetensors", "out.safetensors")
    files = [str(tmp_path / name) for name in names]
    save_file({"images": images}, files[1])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = adapter.refine(images, TOLD)
    finally:
        torch.set_num_threads(threads)
    assert here.strategy == "layerwise"
    assert here.losses.shape == (9, 2)
    there = subprocess.run(
        [sys.executable, "-c", REFINE, *files], check=True, timeout=120, stdout=subprocess.PIPE
    )
    found = load_file(files[2])
    assert torch.equal(found["before"], here.before)
    assert torch.equal(found["after"], here.after)
    assert torch.equal(found["losses"], here.losses)
    assert fa.Transform(**json.loads(there.stdout)) == TRANSFORM


def test_everything_comes_back(saved, resnet):
    loaded = fa.load(saved)
    assert loaded.labels == LABELS
    assert loaded.transform == TRANSFORM
    assert loaded.defaults == fa.Defaults()
    assert not any(module.training for module in loaded.model.modules())
    own = resnet.state_dict()
    assert loaded.model.state_dict().keys() == own.keys()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, own[name])
        assert tensor.dtype == own[name].dtype
    files = ["README.md", "config.json", "feedback_adapter.json", "model.safetensors"]
    assert sorted(path.name for path in saved.iterdir()) == files
    assert fa.load(str(saved)).labels == LABELS
    fa.wrap(resnet, labels=LABELS).save(saved)  # over one that save wrote
    assert fa.load(saved).transform.size == (160, 160)  # timm's own


def test_the_zoos_float16(saved, resnet):
    """Weights stored as float16 are loaded into a float32 model, each the nearest float16."""
    half = {
        name: t.half() if t.is_floating_point() else t for name, t in resnet.state_dict().items()
    }
    rewrite(saved, half, "float16")
    loaded = fa.load(saved).model.state_dict()
    for name, tensor in resnet.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded[name], expected)


def test_by_name(saved):
    spec = fa.CheckpointSpec("tiny-words", saved, "for this test")

    class Zoo:
        @fa.hookimpl
        def feedback_adapter_checkpoints(self):
            return [spec]

    with scoped(Zoo()):
        assert fa.load("tiny-words").labels == LABELS
        with pytest.raises(CheckpointError, match=r"'tiny-wrods'. Did you mean 'tiny-words'\?"):
            fa.load("tiny-wrods")
    with scoped(), pytest.raises(CheckpointError, match=r"Install feedback-adapter-zoo"):
        fa.load("tiny-words")


# ---- what isn't what it says ----


def test_damaged_weights(saved):
    weights = saved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"sha256 .* but its config says .*damaged"):
        fa.load(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no model.safetensors: .* incomplete"):
        fa.load(saved)


def test_weights_of_another_model(saved):
    rewrite(saved, {"other": torch.zeros(3)}, "float16")
    with pytest.raises(CheckpointError, match=r"weights of .* don't fit the model"):
        fa.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, r"format 99; this version reads 2"),
        ({"format": ...}, r"format None"),
        ({"outputs": ...}, r"lacks \['outputs'\]"),
        ({"weights": {"dtype": "float16"}}, r"lacks \['weights.sha256'"),
        (
            {"architecture": {"library": "timm", "model": "no_such_net"}},
            r"timm can't build 'no_such_net'",
        ),
        (
            {"architecture": {"library": "torchvision", "model": "no_such_net"}},
            r"torchvision can't build 'no_such_net'",
        ),
        ({"architecture": {"library": "keras", "model": "x"}}, r"library='keras' is not possible"),
    ],
)
def test_configs_that_are_wrong(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        fa.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint_path": "/etc/passwd"}, "kwargs.checkpoint_path is not possible"),
        ({"pretrained": True}, "kwargs.pretrained is not possible"),
        ({"pretrained_cfg_overlay": {"url": "http://x"}}, "pretrained_cfg_overlay is not possible"),
        ({"cache_dir": "/tmp"}, "kwargs.cache_dir is not possible"),
        ({"num_classes": 10**12}, "numbers up to 1,000,000"),
        ({"num_classes": "4"}, "kwargs.num_classes='4' is not possible"),
        ({"act_layer": "../relu"}, "is not possible in a checkpoint"),
    ],
)
def test_a_config_can_only_build_a_network(saved, change, message):
    """Nothing is opened, fetched or imported because a config says so."""
    kwargs = {"num_classes": 4, **change}
    edit(saved, architecture={"library": "timm", "model": "test_resnet", "kwargs": kwargs})
    with pytest.raises(CheckpointError, match=message):
        fa.load(saved)


@pytest.mark.parametrize("name", ["hf-hub:some/model", "local-dir:/tmp", "../test_resnet"])
def test_a_config_names_models_of_timm_only(saved, name):
    for architecture in (
        {"library": "timm", "model": name},
        {"library": "feedback_adapter", "model": "multihead",
         "kwargs": {"backbone": name, "heads": {"a": 4}}},
    ):  # fmt: skip
        edit(saved, architecture=architecture)
        with pytest.raises(CheckpointError, match="timm can't build"):
            fa.load(saved)


def test_a_config_names_no_file(saved):
    sha = json.loads((saved / "feedback_adapter.json").read_text())["weights"]["sha256"]
    edit(saved, weights={"file": "model.safetensors", "sha256": sha, "dtype": "as saved"})
    with pytest.raises(CheckpointError, match="'weights.file' is not a key of a checkpoint"):
        fa.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transform": {"sizes": [3, 3]}}, r"'transform.sizes' is not a key.*'size'"),
        ({"transform": {"size": [3]}}, r"'transform.size' is \[3\]: it must be two whole numbers"),
        ({"transform": {"std": [0, 1, 1]}}, r"'transform' can't be used: .* each std is above 0"),
        ({"transform": {"mean": [0, 1]}}, r"'transform' can't be used: mean=\[0, 1\]"),
        ({"transform": {"interpolation": "cubic"}}, r"no interpolation 'cubic'.*'bicubic'"),
        ({"architecture": {"libary": "timm"}}, r"'architecture.libary' is not a key"),
        ({"outputs": None}, r"'outputs' is None: it must be an object"),
        ({"outputs": {}}, r"'outputs' is empty"),
        ({"outputs": {"o": {}}}, r"lacks \['outputs.o.kind', 'outputs.o.labels'\]"),
        ({"statistics": None}, r"'statistics' is None: it must be an object"),
        ({"statistics": {"sha256": "0"}}, r"'statistics.sha256' is '0': it must be 64 hexa"),
        ({"priors": {}}, r"'priors' is not a key of a checkpoint"),
        ({"weights": None}, r"'weights' is None: it must be an object"),
        ({"licence": "MIT"}, r"'licence' is not a key of a checkpoint. Did you mean 'license'"),
    ],
)
def test_every_key_is_checked_and_named(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        fa.load(saved)


def _spoiled(resnet, what: str) -> fa.Adapter:
    adapter = fa.wrap(resnet, labels=LABELS)
    if what == "an object of Python":
        adapter.defaults = fa.Defaults("residual", options={"solver": object()})
    elif what == "a number that isn't finite":
        adapter.defaults = fa.Defaults("residual", options={"step_size": float("inf")})
    elif what == "a transform of one's own":
        adapter.transform = nn.Identity()
    return adapter


@pytest.mark.parametrize(
    "what", ["an object of Python", "a number that isn't finite", "a transform of one's own"]
)
def test_what_cannot_be_saved_harms_nothing(resnet, saved, tmp_path, what):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    for folder in (saved, tmp_path / "new"):
        with pytest.raises(CheckpointError):
            _spoiled(resnet, what).save(folder)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]


def test_another_model_is_saved_over_a_good_one_config_last(saved, resnet, monkeypatch):
    """Stopped before the config is exchanged, the old checkpoint still loads."""
    other = timm.create_model("test_resnet", num_classes=4).eval()
    real = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if self.name == "feedback_adapter.json":
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            fa.wrap(other, labels=LABELS).save(saved)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(fa.load(saved).predict(images), resnet(images))
    fa.wrap(other, labels=LABELS).save(saved)
    assert torch.equal(fa.load(saved).predict(images), other(images))
    assert len(list(saved.glob("*.safetensors"))) == 1


def test_an_output_may_have_any_name(tmp_path, resnet):
    adapter = fa.Adapter(resnet, {"scene/fine": fa.Output(LABELS)})
    adapter.fit_prior(torch.rand(9, 4), torch.rand(9, 4).round())
    loaded = fa.load(adapter.save(tmp_path / "named"))
    assert torch.allclose(
        loaded.priors["scene/fine"].mean, adapter.priors["scene/fine"].mean, atol=1e-3
    )


def test_buffers_that_are_not_saved_keep_their_dtype(tmp_path):
    kwargs = {"num_classes": 4, "depth": 1, "embed_dim": 48, "num_heads": 2}
    how = fa.Architecture("timm", "eva02_tiny_patch14_224", kwargs)
    model = how.build().to(torch.bfloat16).eval()
    adapter = fa.wrap(model, labels=LABELS)
    loaded = fa.load(adapter.save(tmp_path / "rope", architecture=how))
    images = torch.rand(1, 3, 224, 224, dtype=torch.bfloat16)
    assert torch.equal(loaded.predict(images), adapter.predict(images))


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_configs_that_are_no_object(saved, text):
    (saved / "feedback_adapter.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"feedback_adapter.json"):
        fa.load(saved)


def test_folders_that_are_no_checkpoint(tmp_path, resnet):
    with pytest.raises(CheckpointError, match=r"no feedback_adapter.json: it isn't a checkpoint"):
        fa.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"There is no checkpoint or folder"):
        fa.load(tmp_path / "nowhere")
    (tmp_path / "thesis.doc").write_text("all of it")
    with pytest.raises(CheckpointError, match="holds other files: give a new or empty folder"):
        fa.wrap(resnet, labels=LABELS).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_safetensors_file_that_is_none(saved):
    (saved / "model.safetensors").write_bytes(b"not weights")
    sha = hashlib.sha256(b"not weights").hexdigest()
    edit(saved, weights={"sha256": sha, "dtype": "float16"})
    with pytest.raises(CheckpointError, match=r"model.safetensors can't be read"):
        fa.load(saved)


def test_nothing_is_ever_unpickled():
    """No file of the library can: no pickle, torch.load, numpy with pickles, shelve, eval."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names]
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                assert not modules & {name.partition(".")[0] for name in names}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("torch.load", "eval", "exec", "pd.read_pickle"), path
                pickles = [k for k in node.keywords if k.arg == "allow_pickle"]
                assert not any(ast.unparse(k.value) != "False" for k in pickles), path
