"""The early stages of a network under a head of their own."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models import create_feature_extractor
from torch import Tensor, nn

from fa_dfm.errors import ConversionError

__all__ = ["Early"]


class Early(nn.Module):
    """A network up to one of its stages, and a head on it.

    Args:
        model: A network that `torch.fx` can trace, as most of timm and torchvision.
        stage: Name of the module at which it ends; what follows is dropped.
        head: Makes logits of that module's output, (batch, K) or (batch, K, height, width).
            Maps are brought to the size of the images.

    Raises:
        ConversionError: The model can't be cut there.
    """

    def __init__(self, model: nn.Module, stage: str, head: nn.Module) -> None:
        super().__init__()
        self.body = _Body(model, stage)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to logits."""
        out = self.head(self.body(images))
        if out.ndim == 4 and out.shape[2:] != images.shape[2:]:
            size = (images.shape[2], images.shape[3])
            out = F.interpolate(out, size=size, mode="bilinear", align_corners=False)
        return out


class _Body(nn.Module):
    def __init__(self, model: nn.Module, stage: str) -> None:
        super().__init__()
        try:
            self.stages = create_feature_extractor(model, {stage: "features"})
        except Exception as error:  # torch.fx raises whatever the model's code raises
            raise ConversionError(
                f"{type(model).__name__} can't be cut after {stage!r}: {error} Give `convert` a "
                "model that ends there, without `loop`."
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)["features"]
