"""A save that is killed, or fails, at any instant leaves what was there, and nothing in the way."""

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError

WATCHED = ("open", "os.", "shutil.")
TIDYING = ("os.listdir", "os.scandir", "os.remove", "os.rmdir", "shutil.rmtree")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* holds the weights of a .*, but not how"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


def made(value: float) -> fa.Adapter:
    """An adapter whose every number says which one it is."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    adapter = fa.wrap(model, labels=["a", "b"])
    adapter.fit_prior(torch.full((3, 2), value), torch.full((3, 2), value))
    return adapter


def value_of(folder: Path) -> float:
    """Which adapter a folder holds; all of its parts must be of the same."""
    loaded = fa.load(folder, model=nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    values = {float(p.detach().mean()) for p in loaded.model.parameters()}
    values |= {float(prior.mean.mean()) for prior in loaded.priors.values()}
    assert len(values) == 1
    return values.pop()


def in_child(work: Callable[[], int]) -> int:
    """The exit status of a forked process that does some work; negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def save_with(folder: Path, at: int, what: Callable[[], None]) -> int:
    """Save in a child; at the given event of a file operation, something happens."""

    def work() -> int:
        torch.set_num_threads(1)
        adapter, seen = made(0.5), 0

        def hook(event: str, args: Any) -> None:
            nonlocal seen
            reads = event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR)
            if event.startswith(WATCHED) and (what is kill or not (reads or event in TIDYING)):
                seen += 1
                if seen == at:
                    what()

        sys.addaudithook(hook)
        try:
            adapter.save(folder)
        except CheckpointError:
            return 1
        return 0 if seen < at else 2

    return in_child(work)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def prepared(tmp_path: Path, before: str) -> Path:
    folder = tmp_path / "place" / "checkpoint"
    if before != "new":
        folder.mkdir(parents=True)
    if before in ("folder inside", "checkpoint"):
        (folder / "training").mkdir()
        (folder / "training" / "state").write_text("kept")
    if before == "checkpoint":
        made(0.25).save(folder)
    return folder


def test_other_configs_are_not_overwritten(tmp_path):
    for text in ("{}", '{"model_type": "vit"}', "{", "[1]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"holds a config.json of something else"):
            made(0.5).save(tmp_path)
        assert (tmp_path / "config.json").read_text() == text


def test_links_and_odd_places(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert value_of(made(0.5).save(tmp_path / "link")) == 0.5
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path / "real")
    assert value_of(made(0.25).save(".")) == 0.25
    assert fa.load(".", model=made(0).model).card.name == "real"
    for wrong in (5, None, "a\0b", "x" * 5000):
        with pytest.raises(CheckpointError, match="can't be written"):
            made(0.5).save(wrong)


def test_what_a_killed_save_left_is_tidied_up(tmp_path):
    left = tmp_path / ".saving-new-0123456789ab"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    made(0.5).save(tmp_path / "new")
    assert left.is_dir()  # it may be a save that is under way
    os.utime(left, (0, 0))
    made(0.5).save(tmp_path / "new2")
    assert left.is_dir()  # another folder's
    shutil.rmtree(tmp_path / "new")
    made(0.5).save(tmp_path / "new")
    assert not left.exists()


@pytest.mark.parametrize("name", ["0", "scene/fine", "x" * 300, "ü"])
def test_outputs_of_any_name_keep_their_statistics_apart(tmp_path, name):
    model = made(0.5).model
    class_names = {name: fa.Output(["a", "b"]), "0x": fa.Output(["a", "b"])}
    adapter = fa.Adapter(model, class_names)
    adapter.fit_prior(torch.full((3, 2), 0.25), torch.zeros(3, 2), output=name)
    adapter.fit_prior(torch.full((3, 2), 0.75), torch.zeros(3, 2), output="0x")
    loaded = fa.load(adapter.save(tmp_path / "names"), model=made(0).model)
    assert float(loaded.priors[name].mean[0, 0]) == 0.25
    assert float(loaded.priors["0x"].mean[0, 0]) == 0.75


@pytest.mark.parametrize("what", [kill, full])
@pytest.mark.parametrize("before", ["new", "empty", "folder inside", "checkpoint"])
def test_at_every_instant(tmp_path, before, what):
    was = 0.25 if before == "checkpoint" else None
    for at in range(1, 1000, 1 if before == "checkpoint" else 3):
        folder = prepared(tmp_path / str(at), before)
        status = save_with(folder, at, what)
        assert status in (-signal.SIGKILL, 0, 1, 2)
        if (folder / "feedback_adapter.json").is_file():
            assert value_of(folder) in (was, 0.5)
        else:
            assert was is None
        if what is full:
            left = [path.name for path in folder.parent.glob(".*")] + [
                path.name for path in folder.glob(".*")
            ]
            assert left == []
        made(0.75).save(folder)  # whatever has happened, the next save succeeds
        assert value_of(folder) == 0.75
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
        config = json.loads((folder / "feedback_adapter.json").read_text())
        assert config.keys() >= {"weights", "statistics"}
        assert files == [
            "README.md", "feedback_adapter.json", "feedback_adapter.safetensors",
            "model.safetensors",
        ]  # fmt: skip
        if before in ("folder inside", "checkpoint"):
            assert (folder / "training" / "state").read_text() == "kept"
        if status == 0:
            break
    assert at > 3
