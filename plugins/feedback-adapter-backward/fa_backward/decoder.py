"""The mixture below the top: from a site's activations to gates and means one site lower."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

OFF = -9.0  # logit of the gate of a dead channel
LEAST = 1e-3  # no mean is smaller


class Decoder(nn.Module):
    """phi of the paper: K predictions of a site from the site above it.

    Args:
        above: Channels of the site above.
        below: Channels of this site.
        components: K, the number of mixture components.
        factor: How many times larger this site is, 1 or an even number.
        gates: Gates per component: one per channel, 1 that all share, or 0 for the published
            model, which has none.
        hidden: Channels of a layer in between; 0 for the published single convolution.
    """

    def __init__(
        self, above: int, below: int, components: int, factor: int, gates: int, hidden: int
    ):
        super().__init__()
        self.components, self.below, self.gates = components, below, gates
        self.read = nn.Conv2d(above, hidden, 3, padding=1) if hidden else None
        out = components * (gates + below)
        if factor == 1:
            self.write = nn.Conv2d(hidden or above, out, 3, padding=1)
        else:
            size = 2 * factor
            self.write = nn.ConvTranspose2d(hidden or above, out, size, factor, factor // 2)
        self.log_spread = nn.Parameter(torch.full((below,), -1.0))

    @property
    def spread(self) -> Tensor:
        """s0, (C, 1, 1)."""
        return self.log_spread.exp()[:, None, None]

    def forward(self, above: Tensor) -> tuple[Tensor, Tensor]:
        """Gate logits (n, K, gates, H, W) and means (n, K, C, H, W) from (n, C', H', W')."""
        out = self.write(above if self.read is None else F.relu(self.read(above)))
        out = out.view(len(out), self.components, self.gates + self.below, *out.shape[2:])
        return out[:, :, : self.gates], F.relu(out[:, :, self.gates :]) + LEAST
