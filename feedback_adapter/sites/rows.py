"""Finding sites whose first dimension has the batch's length, but isn't the images.

Sequence-first encoders have tokens there. With as many images as tokens only the values tell:
one image is replaced, and what changes is looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.errors import SiteError
from feedback_adapter.sites.frozen import frozen
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.intercept import intercept, plain_call
from feedback_adapter.sites.nested import is_dense, named_tensors
from feedback_adapter.sites.recorder import paths_of
from feedback_adapter.sites.site import INPUT, Site

_Sums = dict[int, Tensor]
"""By dimension whose size is a multiple of the batch's: sums over all others; or nothing."""


class RowCheck:
    """Looks at each pivot once."""

    def __init__(self) -> None:
        self._seen: set[Site] = {Site(INPUT)}

    def __call__(self, model: nn.Module, inputs: Inputs, sites: Collection[Site]) -> None:
        """Refuse pivots that don't hold an image in each row."""
        unseen = set(sites) - self._seen
        if inputs.batch < 2 or not unseen:
            return
        with frozen(model):
            others = not_by_image(model, inputs, unseen)
        for site in others:
            raise SiteError(
                f"{site.name!r} has as many rows as there are images, but its first dimension "
                "isn't the images: other rows than the first change when the first image does. "
                "Choose one of `adapter.sites(images)`."
            )
        self._seen |= unseen


@torch.no_grad()
def not_by_image(model: nn.Module, inputs: Inputs, sites: Collection[Site]) -> set[Site]:
    """Those of the sites that don't have one image's activation in each row.

    Their first dimension is as long as the batch, of at least two images: with one there is
    nothing to find. Two forward passes. A model that mixes images by itself, as batch normalisation
    without running statistics does, changes everywhere, and none of its sites is among them. Call
    inside `frozen(model)`.
    """
    if inputs.batch < 2 or not sites:
        return set()
    images = inputs.images.clone()
    images[0] = _another(images)
    before = _sums(model, inputs, sites)
    after = _sums(model, inputs.replace(images), sites)
    return {
        site
        for site, old in before.items()
        if site in after and not _by_image(old, after[site], inputs.batch)
    }


def _another(images: Tensor) -> Tensor:
    """An image that is like none of these."""
    if not images.is_floating_point():
        return images[0].flip(tuple(range(images[0].ndim)))
    noise = torch.Generator().manual_seed(0)
    drawn = torch.randn(images[0].shape, generator=noise, device="cpu").to(images)
    values = images.float()
    return (values.mean() + drawn * (values.std() + 1e-3)).to(images.dtype)


def _by_image(before: _Sums, after: _Sums, batch: int) -> bool:
    """Whether the first row holds what changed, or all of everything changed."""
    if not before or not after:
        return False
    changed = {
        dim: ~torch.isclose(after[dim], old, rtol=1e-6, atol=0, equal_nan=True)
        for dim, old in before.items()
    }
    rows = changed.pop(0)
    if not bool(rows[1:].any()):
        return True
    elsewhere = any(int(d.sum()) <= len(d) // batch for d in changed.values())
    return bool(rows[0]) and not elsewhere


def _sums(model: nn.Module, inputs: Inputs, sites: Collection[Site]) -> dict[Site, _Sums]:
    paths, batch = paths_of(model), inputs.batch
    counts: defaultdict[int, int] = defaultdict(int)
    found: dict[Site, _Sums] = {}

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        index = counts[id(module)]
        counts[id(module)] += 1
        value = plain_call(module, args, kwargs, watch)
        for name, tensor in named_tensors(value):
            site = Site(paths.get(id(module), ""), index, name)
            if site in sites and is_dense(tensor) and tensor.shape[:1] == (batch,):
                found[site] = _sums_of(tensor, batch)
        return value

    with intercept(watch):
        inputs.run(model)
    return found


def _sums_of(tensor: Tensor, batch: int) -> _Sums:
    size, found = tensor.detach().abs(), dict[int, Tensor]()
    for dim, length in enumerate(tensor.shape):
        if length % batch == 0:
            others = [d for d in range(tensor.ndim) if d != dim]
            sums = size.sum(others, dtype=torch.float64) if others else size
            try:
                found[dim] = torch.tensor(sums.tolist(), device="cpu")
            except RuntimeError:  # inside torch.func.vmap: it has no values of its own
                return {}
    return found
