"""A site: a place where a pivot can sit, and what was measured there."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Sequence

__all__ = ["INPUT", "Site", "SiteInfo", "layout_of", "parse_site"]

_NAME = re.compile(r"((?:\\.|#(?![0-9]+(?::|$))|[^:#])*)(?:#([0-9]+))?(?::(.*))?", re.DOTALL)
"""Module, call and selector of a site's name."""

INPUT = "input"
"""The name of the site before the first layer: the model's first tensor argument."""


@dataclasses.dataclass(frozen=True)
class Site:
    """The address of an activation, the same in every forward pass of a model.

    Args:
        module: Path of the module whose call returns the activation, as in
            `model.named_modules()`; `"input"` for the model's input. A module that is itself
            called `input` or `auto` is written `.input` or `.auto`. In `name`, a backslash is
            before each `:`, `#` and backslash of the path.
        call: How many calls of that module came before, in one forward pass.
        selector: Which tensor of what the call returned (`""`: the value itself).

    Example:
        >>> Site("layer3.0").name
        'layer3.0'
        >>> Site.of("layer3.0#1:left")
        Site(module='layer3.0', call=1, selector='left')
    """

    module: str
    call: int = 0
    selector: str = ""

    @classmethod
    def of(cls, name: str | Site) -> Site:
        """Read a site's name, or take the address out of a `SiteInfo`."""
        if isinstance(name, Site):
            return Site(name.module, name.call, name.selector)
        match = _NAME.fullmatch(name)
        assert match is not None, "it matches any text"
        module, call, selector = match.groups()
        return Site(re.sub(r"\\([\\:#])", r"\1", module), int(call or 0), selector or "")

    @property
    def name(self) -> str:
        """`module`, then `#call` if it isn't the first, then `:selector` if there is one."""
        return self._named(f"#{self.call}" if self.call else "")

    def _named(self, call: str) -> str:
        module = re.sub(r"([\\:#])", r"\\\1", self.module)
        return f"{module}{call}{':' + self.selector if self.selector else ''}"

    @property
    def key(self) -> tuple[str, int, str]:
        """The address as a plain tuple."""
        return self.module, self.call, self.selector

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class SiteInfo(Site):
    """A site, and what one traced forward pass measured there.

    It can be passed wherever a `Site` can be, whose arguments it has, too; `Site.of(info)` is its
    address alone.

    Args:
        calls: How many calls of that module one forward pass makes.
        shape: Shape in the traced batch, first the batch.
        layout: `"NCHW"`, `"NHWC"`, `"NLC"`, `"NC"` or `"other"`.
        depth: Share of the forward pass's multiply-accumulates done before it, 0 to 1.
        tail_cost: Share that follows it: what one iteration's forward costs, 0 to 1.
    """

    calls: int = 1
    shape: tuple[int, ...] = ()
    layout: str = "other"
    depth: float = 0.0
    tail_cost: float = 1.0

    @property
    def name(self) -> str:
        """As a `Site`'s, but with `#0`, too, if the module is called more than once."""
        first = self.calls > 1 and not self.call
        return self._named("#0" if first else f"#{self.call}" if self.call else "")

    def __str__(self) -> str:
        return self.name


def parse_site(name: str | Site) -> tuple[str, int, str]:
    """Deprecated: call `Site.of(name).key`."""
    warnings.warn(
        "parse_site is deprecated: use Site.of(name), and its .key for a plain tuple.",
        DeprecationWarning,
        stacklevel=2,
    )
    return Site.of(name).key


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
