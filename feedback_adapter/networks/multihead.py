"""One timm backbone, several linear heads: the multi-task model of Feedback-prop.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.2: fine and
coarse classes predicted from the same features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn


class MultiHead(nn.Module):
    """A timm model's pooled features, and a linear layer on them for each output.

    Args:
        backbone: Name of the timm model.
        heads: Number of entries of each output, by name.
        max_pool: Keep the max pooling of a ResNet's stem; without it, small images keep
            their resolution.
        **kwargs: Further arguments of `timm.create_model`.
    """

    def __init__(
        self, backbone: str, heads: Mapping[str, int], *, max_pool: bool = True, **kwargs: Any
    ) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model(backbone, num_classes=0, **kwargs)
        if not max_pool:
            self.backbone.maxpool = nn.Identity()
        width = self.backbone.num_features
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in heads.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each output, (batch, entries), of images (batch, 3, height, width)."""
        features = self.backbone(images)
        return {name: head(features) for name, head in self.heads.items()}
