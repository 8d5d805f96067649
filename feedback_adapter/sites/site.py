"""A site: a place where a pivot can sit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

__all__ = ["INPUT", "Site", "layout_of", "parse_site"]

INPUT = "input"
"""The name of the site before the first layer: the model's first tensor argument."""


@dataclasses.dataclass(frozen=True)
class Site:
    """An activation of one traced forward pass.

    Args:
        module: Path of the module whose call returns the activation, as in
            `model.named_modules()`; `"input"` for the model's input.
        call: How many calls of that module came before, in one forward pass.
        selector: Which tensor of what the call returned (`""`: the value itself).
        calls: How many calls of that module one forward pass makes.
        shape: Shape in the traced batch, first the batch.
        layout: `"NCHW"`, `"NHWC"`, `"NLC"`, `"NC"` or `"other"`.
        depth: Share of the forward pass's multiply-accumulates done before it, 0 to 1.
        tail_cost: Share that follows it: what one iteration's forward costs, 0 to 1.
    """

    module: str
    call: int = 0
    selector: str = ""
    calls: int = 1
    shape: tuple[int, ...] = ()
    layout: str = "other"
    depth: float = 0.0
    tail_cost: float = 1.0

    @property
    def name(self) -> str:
        """`module`, then `#call` if the module is called more than once, `:selector` if any."""
        call = f"#{self.call}" if self.calls > 1 or self.call else ""
        return f"{self.module}{call}{':' + self.selector if self.selector else ''}"

    @property
    def key(self) -> tuple[str, int, str]:
        """What identifies the site in any forward pass of the model."""
        return self.module, self.call, self.selector

    def __str__(self) -> str:
        return self.name


def parse_site(name: str | Site) -> tuple[str, int, str]:
    """Split a site's name into module path, call index and selector."""
    if isinstance(name, Site):
        return name.key
    module, _, selector = name.partition(":")
    module, _, call = module.partition("#")
    return module, int(call) if call.isdigit() else 0, selector


def layout_of(shape: Sequence[int], image: Sequence[int]) -> str:
    """Guess an activation's layout from its shape and the image's (N, C, H, W).

    Four dimensions are NHWC where the two in the middle, and not the last two, have
    the image's aspect ratio; when both have, the larger of the second and the last
    dimension is the channels.
    """
    if len(shape) == 2:
        return "NC"
    if len(shape) == 3:
        return "NLC"
    if len(shape) != 4:
        return "other"
    ratio = image[-2] / max(image[-1], 1) if len(image) == 4 else 1.0

    def fits(height: int, width: int) -> bool:
        return abs(height - ratio * width) <= max(1.0, ratio)

    first, last = fits(shape[2], shape[3]), fits(shape[1], shape[2])
    if first and last:
        return "NHWC" if shape[3] > shape[1] else "NCHW"
    return "NHWC" if last else "NCHW"
