"""The reference options give the published notebook's numbers, every step of every key."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import feedback_adapter as fa

GOLDEN = np.load(Path(__file__).parent / "golden" / "feedbackprop.npz")
KEYS = [key for key in GOLDEN.files if key[:3] in ("lf/", "rf/")]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.conv3 = nn.Sequential(nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU())
        self.fc = nn.Conv2d(24, 20, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv3(self.conv2(self.conv1(x)))).amax((2, 3))


@pytest.fixture
def adapter() -> fa.Adapter:
    net = Net().double()
    weights = {name[2:]: torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files if name[0] == "w"}
    for layer in ("conv1", "conv2", "conv3"):
        for part in ("weight", "bias"):
            weights[f"{layer}.0.{part}"] = weights.pop(f"{layer}.{part}")
    net.load_state_dict(weights)
    return fa.wrap(net, labels=[f"label{i}" for i in range(20)])


@pytest.mark.parametrize("key", KEYS)
def test_every_step_matches(adapter: fa.Adapter, key: str) -> None:
    form, layers, decay = key.split("/")
    expected = torch.from_numpy(GOLDEN[key])
    pivots = ["input" if name == "input_image" else name for name in layers.split(",")]
    strategy = {"lf": "layerwise", "rf": "residual"}[form]
    options = {"lf": fa.LayerwiseOptions, "rf": fa.ResidualOptions}[form].reference(
        steps=(len(expected) - 1) // (len(pivots) if form == "lf" else 1),
        weight_decay=float(decay[2:]),
    )
    known = torch.zeros(20, dtype=torch.bool)
    known[torch.from_numpy(GOLDEN["known"])] = True
    evidence = fa.Labels.from_tensors(torch.from_numpy(GOLDEN["target"]), known)
    result = adapter.refine(
        torch.from_numpy(GOLDEN["x"]), evidence, strategy=strategy, pivots=pivots,
        options=options, trace=True,
    )  # fmt: skip
    assert result.trace is not None
    assert (result.before - torch.from_numpy(GOLDEN["y0"])).abs().max() < 1e-8
    assert (result.trace["output"] - expected).abs().max() < 1e-8
