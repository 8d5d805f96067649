"""Fixtures and settings for every test: the library's, the zoo's and the plugins'."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent
DATA = Path(os.environ.get("FEEDBACK_ADAPTER_DATA", ROOT / ".." / "shared" / "data")).resolve()
GOLDEN = DATA.parent / "golden"

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the other cores have their own test process


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The same random numbers in every test, whichever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of data sets; a test that needs one says which by `data_dir / NAME`."""
    return _present(DATA, "data sets", "FEEDBACK_ADAPTER_DATA=FOLDER says where they are")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of golden vectors, beside the data."""
    return _present(GOLDEN, "golden vectors", "they lie in `golden` beside the folder of data sets")


@pytest.fixture(scope="session")
def flickr8k(data_dir: Path) -> Path:
    return _present(data_dir / "flickr8k", "Flickr8k", "see docs/data.md")


@pytest.fixture(scope="session")
def coco6k(data_dir: Path) -> Path:
    return _present(data_dir / "coco6k", "COCO subset", "see docs/data.md")


def _present(folder: Path, what: str, hint: str) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{what}: no folder {folder.name!r} in {folder.parent} ({hint})")
    return folder
