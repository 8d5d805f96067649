"""The Python on the pages and in the README runs, in order, each page from top to bottom."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(?:\{code-block\} )?python\n(.*?)^```$", re.M | re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/wrap-my-own-model.md"])
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((ROOT / page).read_text("utf-8"))
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": page})
