"""Every distribution says who may use it and where it lives, and asks only for what it imports."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT, ROOT / "zoo", *sorted(p.parent for p in ROOT.glob("plugins/*/pyproject.toml"))]
OPTIONAL = {"captum", "pandas"}  # what only those need who ask for it: an error says so
NAMES = {"lazy-loader": "lazy_loader", "pillow": "PIL"}


def read(project: Path) -> dict:
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]


def imported(folder: Path) -> set[str]:
    """The top-level packages that the modules of a folder import, anywhere in their code."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
                found |= {str(ast.literal_eval(name)) for name in node.args[:1]}
    return found


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_metadata_is_complete(project):
    described = read(project)
    assert described["license"] == "Apache-2.0"
    assert described["authors"]
    assert described["description"].endswith(".")
    assert {"Homepage", "Issues"} <= set(described["urls"])
    assert (project / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (project / described["readme"]).is_file()


def test_the_core_depends_on_what_it_imports_and_on_nothing_else():
    names = [re.split(r"[<>=]", wanted)[0] for wanted in read(ROOT)["dependencies"]]
    used = (
        imported(ROOT / "feedback_adapter")
        - sys.stdlib_module_names
        - {"feedback_adapter"}
        - OPTIONAL
    )
    assert used == {NAMES.get(name, name) for name in names}


def test_every_distribution_is_installed_from_this_checkout():
    for project in PROJECTS:
        assert metadata.version(read(project)["name"])
