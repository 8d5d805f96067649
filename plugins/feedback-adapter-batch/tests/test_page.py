"""What the manual says to run does run, and its table of columns is complete."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "batch.md").read_text("utf-8")


def test_the_manual_runs(command_line, tmp_path, monkeypatch):
    skimage = pytest.importorskip("skimage", reason="scikit-image has the photos")
    pytest.importorskip("feedback_adapter_zoo", reason="the zoo has the checkpoint")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("astronaut.png", "coffee.png", "chelsea.png"):
        shutil.copy(Path(skimage.__file__).parent / "data" / name, tmp_path / "photos")
    (table,) = re.findall(r":caption: known.csv\n\n(.*?)```", PAGE, re.S)
    (tmp_path / "known.csv").write_text(table)
    (words,) = re.findall(r"^\$ feedback-adapter (.*)$", PAGE, re.M)
    code, said, complaint = command_line(*shlex.split(words))
    assert (code, said, complaint) == (0, "3 images: 1 file in refined\n", "")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    exec("\n".join(blocks), {"__name__": "page"})
    frame = pd.read_parquet("refined").set_index("id")
    assert frame.loc["astronaut.png", ["known:person", "known:dog"]].tolist() == [1, 0]
    assert frame.loc["chelsea.png", "after:cat"] > frame.loc["chelsea.png", "before:cat"]
    for column in frame.reset_index().columns:
        part, _, label = column.partition(":")
        assert f"`{part}:LABEL`" in PAGE if label else f"| `{column}` |" in PAGE
