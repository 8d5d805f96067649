"""Shapley values: how to share out a movement among what brought it about together.

Source: Shapley, "A value for n-person games", 1953. The value of an item is what it adds to those
that came before it, averaged over all orders in which they can come. The values of all items sum
to the whole movement, and an item that never changes anything gets exactly 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Value = Callable[[frozenset[int]], Tensor]
"""What comes of some of the items, by number: a tensor, of the same shape for all of them."""


def exact(value: Value, count: int) -> Tensor:
    """Average over all orders, by asking once for each of the 2^count choices of items.

    Orders in which the same items come before an item are taken together: with n items there are
    k! (n - 1 - k)! in which a certain k of them do, out of n!. (captum's `ShapleyValues` goes
    through all n! orders one by one, in float32.)

    Args:
        value: It is asked several times for the same items, and should remember.
        count: How many items there are.

    Returns:
        (count, ...): the Shapley value of each item.
    """
    shares: list[Tensor] = []
    for item in range(count):
        others = [other for other in range(count) if other != item]
        share = torch.zeros_like(value(frozenset()))
        for size in range(count):
            weight = 1 / (count * math.comb(count - 1, size))
            for some in itertools.combinations(others, size):
                share += weight * (value(frozenset((*some, item))) - value(frozenset(some)))
        shares.append(share)
    return torch.stack(shares)


def sampled(value: Value, count: int, orders: int) -> tuple[Tensor, Tensor]:
    """Average over some orders that are drawn at random.

    Args:
        value: It is asked several times for the same items, and should remember.
        count: How many items there are.
        orders: How many orders, at least 2.

    Returns:
        (count, ...) each: the estimates, which sum to the whole movement, too, and the standard
        error of each.
    """
    generator = torch.Generator().manual_seed(0)
    gains: list[Tensor] = []
    for _ in range(orders):
        chosen, last = frozenset[int](), value(frozenset())
        gain = torch.zeros(count, *last.shape, dtype=last.dtype)
        for item in torch.randperm(count, generator=generator, device="cpu").tolist():
            chosen = chosen | {item}
            now = value(chosen)
            gain[item], last = now - last, now
        gains.append(gain)
    every = torch.stack(gains)
    return every.mean(0), every.std(0) / math.sqrt(orders)
