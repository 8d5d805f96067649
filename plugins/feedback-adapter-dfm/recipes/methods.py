"""The networks that the tables compare, each made by the same conversion."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fa_dfm
from fa_dfm import DFM, Known
from fa_dfm.nets import NETS

__all__ = ["SMALL", "Method", "macs", "parameters"]


@dataclasses.dataclass(frozen=True)
class Method:
    """One network and how often it looks.

    A network that looks once is converted like the others: what is known enters by the same
    channels, and there is no second look for feedback to reach.

    Args:
        net: A key of `fa_dfm.nets.NETS`.
        options: Of that network.
        looks: T.
        hidden: Channels of features that are fed back.
        update: See `fa_dfm.convert`.
        tau: See `fa_dfm.convert`.
        truncate: Gradients go through one look only.
        lr: Largest learning rate.
        batch_norms: Batch norms in place of group norms. In training every look is normalised by
            its own statistics; afterwards all looks share the running ones.
    """

    net: str = "small-view"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    looks: int = 1
    hidden: int = 0
    update: str = "replace"
    tau: float | None = None
    truncate: bool = True
    lr: float = 5e-3
    batch_norms: bool = False

    def make(self, side: int, seed: int) -> DFM:
        """The converted network with fresh weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = NETS[self.net](**self.options)
            if self.batch_norms:
                _exchange_norms(model)
            return fa_dfm.convert(
                model,
                hidden=self.hidden,
                update=self.update,
                tau=self.tau,
                steps=self.looks,
                kind="multilabel",
                image_size=(side, side),
                frozen_norms=not self.batch_norms,
            )


def _exchange_norms(model: nn.Module) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.GroupNorm):
            model.set_submodule(name, nn.BatchNorm2d(module.num_channels))


SMALL = {
    "loop": Method(looks=6, hidden=8),
    "feedforward": Method(),
    "untied": Method(options={"depth": 26}),
    "unet": Method("unet"),
    "unet loop": Method("unet", looks=6, hidden=8),
    "published": Method(looks=6, update="published", tau=0.2),
}
"""The methods of the tables on triangles; `untied` does as many multiply-adds as `loop`."""


def macs(
    net: DFM, images: torch.Tensor, known: Known | None = None, looks: int | None = None
) -> int:
    """Multiply-adds of T looks at one image, counted by PyTorch in the operations that ran.

    Args:
        net: On the device of the images.
        images: (1, channels, height, width).
        known: What is known about them.
        looks: T; `None` for the network's own.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(images, known, looks)
    return counter.get_total_flops() // 2


def parameters(net: DFM) -> int:
    """How many weights a network has."""
    return sum(p.numel() for p in net.parameters())
