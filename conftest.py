"""Fixtures and settings for every test: the library's, the zoo's and the plugins'."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import feedback_adapter as fa
from feedback_adapter.cli import common, main

CommandLine = Callable[..., tuple[int, str, str]]
DATA = Path(os.environ.get("FEEDBACK_ADAPTER_DATA", Path(__file__).parents[1] / "shared" / "data"))

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the other cores have their own test process


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The same random numbers in every test, whichever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Callable[[str], Path]:
    """`data_dir("flickr8k")`: that data set's folder; the test is skipped where it is absent."""

    def folder(name: str) -> Path:
        found = DATA / name
        if not found.is_dir():
            pytest.skip(f"data set {name!r} is absent (FEEDBACK_ADAPTER_DATA=FOLDER says where)")
        return found

    return folder


@pytest.fixture
def command_line(capsys, monkeypatch) -> CommandLine:
    """Run the program in this process: exit code, standard output, standard error."""

    def run(*words: str | Path, columns: int = 200) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["feedback-adapter", *map(str, words)])
        monkeypatch.setattr(common.console, "_width", columns)
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A small timm model with the labels of a made-up Flickr8k, saved in a folder."""
    labels = ("dog", "snow", "ball", "grass", "red", "water")
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=len(labels))
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 48, 64))
        model.fc.weight.mul_(5)
    adapter = fa.Adapter(
        model.eval(), {"output": fa.Output(labels)}, transform=fa.Transform((48, 64), "bilinear"),
        defaults=fa.Defaults("residual", ("layer3",), {"steps": 3, "step_size": 0.05}),
    )  # fmt: skip
    folder = adapter.save(tmp_path_factory.mktemp("zoo") / "tiny-words")
    config = json.loads((folder / "feedback_adapter.json").read_text())
    config["data"] = {"source": "caption-words"}
    config["refine"]["reference"] = {"residual": {"steps": 2, "pivots": ["layer2"]}}
    (folder / "feedback_adapter.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("# tiny-words\n\nIt scores **nothing**.")
    return folder
