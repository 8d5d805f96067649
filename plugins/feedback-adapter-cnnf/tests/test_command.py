"""`feedback-adapter attack`."""

import json

import pytest
import typer
from typer.testing import CliRunner

from fa_cnnf import command
from fa_cnnf.data import fashion_mnist
from feedback_adapter.errors import CheckpointError
from feedback_adapter.plugins import plugins

ready = (
    any(s.name == "fashion-cnnf-adversarial" for s in plugins().all("checkpoints"))
    and fashion_mnist.FOLDER.is_dir()
)


@pytest.mark.skipif(not ready, reason="needs the zoo and Debian's dataset-fashion-mnist")
def test_attack_prints_rows_of_the_results_format():
    app = typer.Typer()
    app.command()(command.attack)
    options = "fashion-cnnf-adversarial --eps 0.2 --images 4 --steps 3 --kind pgd --json"
    result = CliRunner().invoke(app, options.split())
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    expected = "checkpoint readout iteration attack eps accuracy images seed".split()
    assert list(rows[0]) == expected
    assert {(r["readout"], r["iteration"]) for r in rows} == {
        ("last", 0),
        ("last", 1),
        ("avg", None),
    }
    assert [r["attack"] for r in rows] == ["none", "after-pgd3", "worst"] * 3


@pytest.mark.skipif(not ready, reason="needs the zoo and Debian's dataset-fashion-mnist")
def test_attacks_are_not_transferred_from_a_net_of_other_images():
    app = typer.Typer()
    app.command()(command.attack)
    options = "fashion-cnnf-adversarial --eps 0.2 --source cifar10-wrn-cnn-adversarial"
    error = CliRunner().invoke(app, options.split()).exception
    assert isinstance(error, CheckpointError)
    assert "'cifar10-wrn-cnn-adversarial' was trained on 'cifar10'" in str(error)
