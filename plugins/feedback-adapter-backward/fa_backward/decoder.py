"""The mixture below the top: from a site's activations to gates and means one site lower."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

OFF = -9.0  # logit of the gate of a dead channel


class Decoder(nn.Module):
    """phi of the paper, gated: K predictions of a site from the site above it.

    Args:
        above: Channels of the site above.
        below: Channels of this site.
        hidden: Channels in between.
        components: K, the number of mixture components.
        factor: How many times larger this site is, 1 or a power of two.
        one_gate: All channels share one gate, as at the image.
    """

    def __init__(
        self, above: int, below: int, hidden: int, components: int, factor: int, one_gate: bool
    ):
        super().__init__()
        self.components, self.below = components, below
        self.gates = 1 if one_gate else below
        self.read = nn.Conv2d(above, hidden, 3, padding=1)
        out = components * (self.gates + below)
        if factor == 1:
            self.write = nn.Conv2d(hidden, out, 3, padding=1)
        else:
            self.write = nn.ConvTranspose2d(hidden, out, 2 * factor, factor, factor // 2)
        self.log_spread = nn.Parameter(torch.full((below,), -1.0))

    @property
    def spread(self) -> Tensor:
        """s0, (C, 1, 1)."""
        return self.log_spread.exp()[:, None, None]

    def forward(self, above: Tensor) -> tuple[Tensor, Tensor]:
        """Gate logits (n, K, 1 or C, H, W) and means (n, K, C, H, W) from (n, C', H', W')."""
        out = self.write(F.relu(self.read(above)))
        out = out.view(len(out), self.components, self.gates + self.below, *out.shape[2:])
        return out[:, :, : self.gates], F.relu(out[:, :, self.gates :]) + 1e-3
