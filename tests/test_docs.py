"""What the pages and the README say to run does run: the Python, then the commands."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedback_adapter.cli import app

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"^\$ feedback-adapter (.*)$", re.M)
BLOCK = re.compile(r"^```(?:\{code-block\} )?python\n(.*?)^```$", re.M | re.S)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/tutorial.md",
        "docs/explain.md",
        "docs/wrap-my-own-model.md",
        "docs/newton.md",
        "docs/evidence.md",
        "docs/strategies.md",
        "plugins/feedback-adapter-cnnf/docs/cnnf.md",
    ],
)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text("utf-8")
    blocks = BLOCK.findall(text)
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": page})
    for command in COMMAND.findall(text):
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}"
