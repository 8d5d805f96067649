"""Photos for tests of the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> list[Path]:
    """Photos of sizes of their own, one in a file whose name looks like markup."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    names = ["first.png", "second [red].jpg"]
    for name, size in zip(names, [(40, 60, 3), (80, 30, 3)], strict=True):
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    return [folder / name for name in names]
