"""Tokens and maps, channels first and last: each test is named after what it is about."""

import pytest
import timm
import torch
from torch import Tensor, nn

import feedback_adapter as fa


class Tokens(nn.Module):
    """A minimal transformer, its attention PyTorch's own: a fused path without gradients."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=False)
        if module == "encoder":
            self.encoder = nn.TransformerEncoder(layer, 2)
        else:
            self.encoder = layer
        self.head = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        return self.head(self.encoder(tokens)[:, 0])


@pytest.mark.parametrize("module", ["layer", "encoder"])
def test_fused_attention_of_torch(holds, images, module):
    model = Tokens(module).eval()
    inside = "encoder.layers.0.linear1" if module == "encoder" else "encoder.linear1"
    for pivot in ("embed", inside):
        holds(model, images, pivot)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("name", "pivot", "layout"),
    [
        ("test_mambaout", "stages.1.blocks.0", "NHWC"),
        ("test_vit", "blocks.2", "NLC"),
        ("test_resnet", "layer2", "NCHW"),
    ],
    ids=["NHWC", "tokens", "NCHW"],
)
def test_layouts(holds, name, pivot, layout):
    model = timm.create_model(name, num_classes=4).eval()
    images = torch.randn(2, 3, 160, 160)
    sites = {site.name: site for site in fa.wrap(model, labels=list("abcd")).sites(images)}
    assert sites[pivot].layout == layout
    holds(model, images, pivot)
