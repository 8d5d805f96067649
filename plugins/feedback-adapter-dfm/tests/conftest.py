import sys
from pathlib import Path

import pytest
import torch

import fa_dfm
from fa_dfm.nets import SmallView

# The recipes are scripts that import each other.
sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def trained():
    """A small network whose feedback weights aren't zero, in float64."""
    torch.manual_seed(3)
    net = fa_dfm.convert(
        SmallView(labels=3, channels=2, width=8, depth=4), hidden=4, image_size=(24, 24)
    ).double()
    with torch.no_grad():
        net.feedback.maps.weight.normal_(0, 0.3)
    return net.eval()


@pytest.fixture
def images():
    return torch.rand(3, 2, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def known():
    """Of the first image 20 pixels are known, of the second one, of the third none."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.full((3, 24, 24), -1)
    mask[0].view(-1)[:20] = torch.randint(3, (20,), generator=generator)
    mask[1, 5, 7] = 2
    told = fa_dfm.Known.from_mask(mask, 3)
    return fa_dfm.Known(told.weight.double(), told.target.double())
