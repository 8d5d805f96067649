"""The plugin templates make projects that install, are tidy, and whose own tests pass."""

import json
import re
from pathlib import Path

import copier
import pytest

ROOT = Path(__file__).parents[1]
STYLE = ["--isolated", "--no-cache", "--line-length=100", "--select=B,E,F,I,UP,W"]


@pytest.mark.parametrize(
    ("kind", "name", "tests"),
    [("evidence", "any-of", 4), ("evidence", "my-own-kind", 4), ("strategy", "line-search", 5)],
)
def test_template(kind, name, tests, install, tmp_path):
    project = tmp_path / "project"
    copier.run_copy(
        str(ROOT / "plugins" / "template"),
        project,
        data={"kind": kind, "name": name},
        defaults=True,
        quiet=True,
    )
    run = install(project, tmp_path / "installed")
    run("python", "-m", "ruff", "check", *STYLE, ".", cwd=project)
    listed = json.loads(run("feedback-adapter", "plugins", "--json", cwd=project))
    assert name in json.dumps(listed)
    (project / f"fa_{name.replace('-', '_')}.py").unlink()  # what is tested is what was installed
    printed = run("python", "-m", "pytest", "-q", cwd=project)
    assert re.search(rf"\b{tests} passed", printed)
