"""Switches that gradients can see through, for attacks. Values stay exact.

Source: Athalye, Carlini, Wagner, 'Obfuscated gradients give a false sense of security' (ICML
2018), section 4.1: the backward pass of a differentiable approximation (BPDA).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["soft_switch", "straight_through"]


def soft_switch(sign: Tensor, width: float) -> Tensor:
    """A smooth 1[sign > 0]: the sigmoid of `sign` over `width` times its root mean square.

    Args:
        sign: (batch, ...); the mean runs over all but the batch.
        width: Above 0.
    """
    size = sign.detach().square().mean(tuple(range(1, sign.ndim)), keepdim=True)
    return torch.sigmoid(sign / (width * torch.sqrt(size + 1e-8)))


def straight_through(value: Tensor, smooth: Tensor) -> Tensor:
    """`value` forward, the gradient of `smooth` backwards."""
    return value.detach() + (smooth - smooth.detach())
