"""Networks of our own that checkpoints name: what timm and torchvision don't have.

A checkpoint's config says `{"library": "feedback_adapter", "model": NAME, "kwargs": ...}`;
`NETWORKS` is all that NAME can be, so a config never imports anything.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from feedback_adapter.networks.captioner import Captioner
from feedback_adapter.networks.multihead import MultiHead

__all__ = ["NETWORKS", "Captioner", "MultiHead"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {"captioner": Captioner, "multihead": MultiHead}
"""Name of a network to what builds it, without weights."""
