"""How the features of a step enter those that the loop carries: h <- lambda h + w_t delta."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from feedback_adapter.errors import OptionsError

__all__ = ["UPDATES", "Leaky", "Published", "Replace", "Update", "decayed", "make_update"]


class Update(nn.Module):
    """Makes the next features from the last ones (`None`: zeros), the new ones and the step."""

    def forward(self, features: Tensor | None, delta: Tensor, step: int) -> Tensor:
        """(batch, channels, height, width), twice, and t = 0, 1, ... to the next features."""
        raise NotImplementedError


class Replace(Update):
    """lambda = 0, w = 1: the newest features are the state."""

    def forward(self, features: Tensor | None, delta: Tensor, step: int) -> Tensor:  # noqa: ARG002
        """See `Update.forward`."""
        return delta


class Leaky(Update):
    """lambda = e^(-1/tau), w = 1 - lambda: an average that forgets after about tau steps."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.keep = math.exp(-1 / tau)

    def forward(self, features: Tensor | None, delta: Tensor, step: int) -> Tensor:  # noqa: ARG002
        """See `Update.forward`."""
        new = (1 - self.keep) * delta
        return new if features is None else self.keep * features + new


class Published(Update):
    """lambda = 1, w_t = e^(t P / tau) with P = -Q' diag(|S|^alpha) Q and an orthogonal Q.

    In the published code S stays at ones, so that P = -I and the weight is the number
    e^(-t/tau), whatever Q is. Here S is learned.

    Args:
        channels: Of the features.
        tau: In steps, above 0.
        alpha: The exponent of |S|.
        learn_scale: Learn S. With `False` it stays at ones, as in the published code.
    """

    def __init__(
        self, channels: int, tau: float, alpha: float = 1.0, *, learn_scale: bool = True
    ) -> None:
        super().__init__()
        self.tau, self.alpha = tau, alpha
        self.scale = nn.Parameter(torch.ones(channels), requires_grad=learn_scale)
        self.rotation = parametrizations.orthogonal(nn.Linear(channels, channels, bias=False))

    def forward(self, features: Tensor | None, delta: Tensor, step: int) -> Tensor:
        """See `Update.forward`."""
        new = decayed(delta, step, self.rotation.weight, self.scale.abs() ** self.alpha, self.tau)
        return new if features is None else features + new


def decayed(delta: Tensor, step: int, rotation: Tensor, rates: Tensor, tau: float) -> Tensor:
    """e^(t P / tau) delta with P = -Q' diag(rates) Q, at every place of a feature map.

    Args:
        delta: (batch, channels, height, width).
        step: t, from 0 on.
        rotation: Q, orthogonal, (channels, channels).
        rates: |S|^alpha, (channels,).
        tau: In steps, above 0.
    """
    weights = torch.exp(-step / tau * rates)
    turned = torch.einsum("ij,bjhw->bihw", rotation, delta) * weights[:, None, None]
    return torch.einsum("ji,bjhw->bihw", rotation, turned)


UPDATES = ("replace", "leaky", "published")
"""The names that `convert(update=...)` knows."""


def make_update(name: str, channels: int, tau: float | None) -> Update:
    """The update of that name.

    Args:
        name: One of `UPDATES`.
        channels: Of the features.
        tau: How many steps the loop remembers, above 0; `None` for 2. `"replace"` has none.

    Raises:
        OptionsError: An unknown name, or a tau that isn't possible.
    """
    if name not in UPDATES:
        raise OptionsError(f"update={name!r} is not possible: {', '.join(UPDATES)} are.")
    if tau is not None and (name == "replace" or not tau > 0):
        raise OptionsError(
            f"tau={tau!r} is not possible: it must be above 0, and update='replace' takes none."
        )
    if name == "replace":
        return Replace()
    return Leaky(tau or 2.0) if name == "leaky" else Published(channels, tau or 2.0)
