"""The pages on writing plugins do what they say, built and installed from their own text."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

DOCS = Path(__file__).parents[1] / "docs"
FILE = re.compile(r"^```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ (feedback-adapter .*)$", re.M)
PAGES = {
    "one-of": ("write-an-evidence-plugin.md", "4 passed"),
    "channel-gain": ("write-a-strategy-plugin.md", "6 passed"),
}


@pytest.fixture(scope="module", params=PAGES)
def plugin(request):
    """The name of the plugin of a page."""
    return request.param


@pytest.fixture(scope="module")
def text(plugin):
    """The page."""
    return (DOCS / PAGES[plugin][0]).read_text("utf-8")


@pytest.fixture(scope="module")
def run(plugin, text, install, tmp_path_factory):
    """Run something in a folder with the page's files, the plugin installed elsewhere."""
    folder = tmp_path_factory.mktemp(plugin)
    for name, content in FILE.findall(text):
        (folder / name).write_text(content, "utf-8")
    Image.fromarray(data.astronaut()).save(folder / "photo.png")  # a photo of one person
    runner = install(folder, tmp_path_factory.mktemp("installed"))
    (folder / f"fa_{plugin.replace('-', '_')}.py").unlink()  # what runs is what was installed
    return lambda *words: runner(*words, cwd=folder)


def test_its_own_tests_pass(plugin, run):
    test = f"test_{plugin.replace('-', '_')}.py"
    printed = run("python", "-m", "pytest", "-q", "-W", "error", test)
    assert PAGES[plugin][1] in printed


def test_commands_of_the_page_refine(plugin, text, run):
    plugins, refine = (shlex.split(line) for line in COMMAND.findall(text))
    assert plugin in run(*plugins)
    (image,) = json.loads(run(*refine, "--json"))["images"]
    assert image["losses"][-1] < image["losses"][0]


def test_python_refines(plugin, run):
    table = run("python", f"use_{plugin.replace('-', '_')}.py")
    told = {"one-of": "snow", "channel-gain": "woman"}[plugin]
    line = next(line for line in table.splitlines() if told in line)
    assert "known" in line
