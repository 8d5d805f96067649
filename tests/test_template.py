"""The plugin template makes a project that installs, is tidy, and whose own tests pass."""

import json
import re
from pathlib import Path

import copier
import pytest

ROOT = Path(__file__).parents[1]
STYLE = ["--isolated", "--no-cache", "--line-length=100", "--select=B,E,F,I,UP,W"]


@pytest.mark.parametrize("name", ["any-of", "my-own-kind"])
def test_template(name, install, tmp_path):
    project = tmp_path / "project"
    copier.run_copy(
        str(ROOT / "plugins" / "template"), project, data={"name": name}, defaults=True, quiet=True
    )
    run = install(project, tmp_path / "installed")
    run("python", "-m", "ruff", "check", *STYLE, ".", cwd=project)
    listed = json.loads(run("feedback-adapter", "plugins", "--json", cwd=project))
    assert name in json.dumps(listed)
    (project / f"fa_{name.replace('-', '_')}.py").unlink()  # what is tested is what was installed
    printed = run("python", "-m", "pytest", "-q", cwd=project)
    assert re.search(r"\b5 passed", printed)
