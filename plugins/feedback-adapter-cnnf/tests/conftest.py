import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fa_cnnf.nets import FashionNet, WideResNet

GOLDEN = Path(__file__).parent / "golden" / "cnnf.npz"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="session")
def golden_nets(golden):
    meta = json.loads(str(golden["meta"]))
    nets = {"mnist": FashionNet().double(), "wrn": WideResNet(16, 1).double()}
    for key, listed, seed in (("mnist", "mnist", 1), ("wrn", "wrn16-1", 2)):
        random = np.random.RandomState(seed)
        for (name, shape), parameter in zip(meta[listed], nets[key].parameters(), strict=True):
            scale = 0.1 if name.endswith("bias") else math.sqrt(2 / np.prod(shape[1:]))
            value = torch.from_numpy(random.randn(*shape) * scale)
            parameter.data = value.reshape(parameter.shape)
    return nets
