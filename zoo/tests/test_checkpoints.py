"""Every checkpoint of the zoo, loaded and saved again, is what it was."""

import json
from pathlib import Path

import pytest

import feedback_adapter as fa
from feedback_adapter.checkpoint import read_config
from feedback_adapter_zoo import CHECKPOINTS

FOLDERS = sorted(path.parent for path in CHECKPOINTS.glob("*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_saved_again_it_keeps_every_key_every_weight_and_its_page(folder: Path, tmp_path: Path):
    saved = fa.load(folder.name).save(tmp_path / "again")
    before, after = read_config(folder), read_config(saved)
    assert before == {key: after[key] for key in before}
    assert set(after) - set(before) <= {"refine"}
    files = [before["weights"], *before.get("priors", {}).values()]
    for note in files:
        assert (saved / note["file"]).read_bytes() == (folder / note["file"]).read_bytes()
    assert (saved / "card.md").read_text("utf-8") == (folder / "card.md").read_text("utf-8")
    assert fa.load(saved).card == fa.load(folder).card


def test_all_of_them_are_listed():
    assert len(FOLDERS) == 19
    for folder in FOLDERS:
        assert json.loads((folder / "config.json").read_text("utf-8"))["name"] == folder.name
