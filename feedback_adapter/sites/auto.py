"""Choosing where a pivot sits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from feedback_adapter.errors import FeedbackAdapterError, SiteError
from feedback_adapter.sites.discover import discover
from feedback_adapter.sites.frozen import frozen
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.site import INPUT, Site, SiteInfo
from feedback_adapter.sites.tail import Tail

T = TypeVar("T")

Read = Callable[[Any], Mapping[str, Tensor]]
"""Takes the named outputs out of what the model returns."""


class Automatic:
    """The site that is taken where nobody names one, found once for images of each size."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, ...], Site] = {}

    def site(self, model: nn.Module, inputs: Inputs, read: Read) -> Site:
        """The site for these images: what `middle` finds."""
        form = (inputs.batch > 1, *inputs.images.shape[1:])
        if form not in self._found:
            with frozen(model):
                found = on_two(inputs, lambda some: middle(model, some, read))
            self._found[form] = Site.of(found)
        return self._found[form]

    def elsewhere(
        self, model: nn.Module, inputs: Inputs, read: Read, sites: tuple[Site, ...]
    ) -> Site | None:
        """Another site, where these images took another way than those that `sites` are from."""
        form = (inputs.batch > 1, *inputs.images.shape[1:])
        if sites != (self._found.get(form),):
            return None
        with frozen(model):
            self._found[form] = Site.of(middle(model, inputs, read))
        return None if sites == (self._found[form],) else self._found[form]


def on_two(inputs: Inputs, look: Callable[[Inputs], T]) -> T:
    """What is seen with the first two images, or with all where the model doesn't take two.

    One image isn't enough to tell the batch from other dimensions of length 1, and batch
    normalisation without running statistics doesn't take one. A model that was exported for a
    fixed number of images takes only that many.
    """
    try:
        return look(inputs.take(torch.arange(min(2, inputs.batch), device=inputs.images.device)))
    except FeedbackAdapterError:
        if inputs.batch <= 2:
            raise
        return look(inputs)


def middle(model: nn.Module, inputs: Inputs, read: Read) -> SiteInfo:
    """A site near the middle of the computation that all outputs depend on.

    Of those between 30% and 70% of it, the outermost module's is taken (a stage rather
    than a layer in it, so that little goes around it), and of these the nearest to 50%.
    Where there is none, as in TorchScript, it is the input. Call inside `frozen(model)`.
    """

    def order(site: SiteInfo) -> tuple[bool, bool, int, float]:
        distance = abs(site.depth - 0.5)
        outer = site.module.count(".") if distance <= 0.2 else 0
        return site.module == INPUT, distance > 0.2, outer, distance

    for site in sorted(discover(model, inputs), key=order):
        if reaches_all(model, inputs, site, read):
            return site
    raise SiteError(
        "No site was found that all outputs depend on: no activation with a row for each image, "
        "and not the input, has a gradient from all of them. Name pivots, if you know one that "
        "has; adapter.sites(images) lists all."
    )


def spread(model: nn.Module, inputs: Inputs, read: Read, count: int) -> list[SiteInfo]:
    """At most `count` sites from early to late that all outputs depend on.

    The computation is cut into that many equal parts; of each, the outermost module's first
    site is taken. Call inside `frozen(model)`.
    """
    sites = [site for site in discover(model, inputs) if site.module != INPUT]
    chosen: list[SiteInfo] = []
    for part in range(count):
        low, high = part / count, (part + 1) / count
        inside = [s for s in sites if low < s.depth <= high]
        inside.sort(key=lambda site: (site.module.count("."), site.depth))
        here = (site for site in inside if reaches_all(model, inputs, site, read))
        chosen += [site for site in [next(here, None)] if site is not None]
    return chosen


def reaches_all(model: nn.Module, inputs: Inputs, site: Site, read: Read) -> bool:
    """Whether every output depends on the activation at a site."""
    try:
        tail = Tail.record(model, inputs, [site])
        with torch.enable_grad():
            leaf = tail.activations[0].detach().clone().requires_grad_()
            outputs = read(tail.run([lambda _: leaf], check=True))
            for value in outputs.values():
                if not value.requires_grad:
                    return False
                # Not the sum: that of a softmax is always 1.
                weighted = value.movedim(1, -1) * torch.arange(
                    1, value.shape[1] + 1, device=value.device
                )
                gradient = torch.autograd.grad(
                    weighted.sum(), leaf, allow_unused=True, retain_graph=True
                )
                if gradient[0] is None or not bool(gradient[0].any()):
                    return False
    except Exception as error:  # not every operation has a derivative, and one may fail in any way
        if isinstance(error, FeedbackAdapterError) and not isinstance(error, SiteError):
            raise
        return False
    return True
