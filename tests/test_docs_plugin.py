"""The page 'Write an evidence plugin' does what it says, built and installed from its own text."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

PAGE = Path(__file__).parents[1] / "docs" / "write-an-evidence-plugin.md"
FILE = re.compile(r"^```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ (feedback-adapter .*)$", re.M)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The files of the page, and a photo of one person."""
    folder = tmp_path_factory.mktemp("one-of")
    for name, text in FILE.findall(PAGE.read_text("utf-8")):
        (folder / name).write_text(text, "utf-8")
    Image.fromarray(data.astronaut()).save(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def run(project, install, tmp_path_factory):
    """Run something in the project's folder, with the plugin installed elsewhere."""
    runner = install(project, tmp_path_factory.mktemp("installed"))
    (project / "fa_one_of.py").unlink()  # so that what runs is what was installed
    return lambda *words: runner(*words, cwd=project)


def test_its_own_tests_pass(run):
    printed = run("python", "-m", "pytest", "-q", "-W", "error", "test_one_of.py")
    assert re.search(r"\b4 passed", printed)


def test_commands_of_the_page_refine(run):
    plugins, refine = (shlex.split(line) for line in COMMAND.findall(PAGE.read_text("utf-8")))
    assert "one-of" in run(*plugins)
    (image,) = json.loads(run(*refine, "--json"))["images"]
    assert image["losses"][-1] < image["losses"][0]


def test_python_refines(run):
    table = run("python", "use_one_of.py")
    snow = next(line for line in table.splitlines() if "snow" in line)
    assert "known" in snow
