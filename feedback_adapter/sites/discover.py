"""Finding every place where a pivot can sit."""

from __future__ import annotations

from typing import Any

from torch import nn

from feedback_adapter.errors import SiteError, did_you_mean
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.recorder import paths_of, record
from feedback_adapter.sites.rows import not_by_image
from feedback_adapter.sites.site import INPUT, Site, SiteInfo, layout_of

__all__ = ["discover", "named_sites"]


def discover(model: nn.Module, inputs: Inputs) -> list[SiteInfo]:
    """List the sites of one forward pass, in the order in which they are computed.

    A site is a floating-point tensor with one row per image. The first is the input.
    Call inside `frozen(model)`.
    """
    recording = record(model, inputs)
    image = tuple(inputs.images.shape)
    total = max(recording.macs, 1)
    calls: dict[str, int] = {}
    for call in recording.calls:
        calls[call.path] = max(calls.get(call.path, 0), call.index + 1)
    sites = [SiteInfo(INPUT, shape=image, layout=layout_of(image, image))]
    for call in recording.calls:
        if not call.path or call.path.startswith("<"):  # the model itself, a passing module
            continue
        for selector, shape, dtype in call.tensors:
            if not dtype.is_floating_point or not shape or shape[0] != inputs.batch:
                continue
            depth = call.macs / total
            sites.append(
                SiteInfo(
                    call.path,
                    call.index,
                    selector,
                    calls=calls[call.path],
                    shape=shape,
                    layout=layout_of(shape, image),
                    depth=depth,
                    tail_cost=1 - depth,
                )
            )
    others = not_by_image(model, inputs, {Site.of(site) for site in sites[1:]})
    return [site for site in sites if Site.of(site) not in others]


def named_sites(model: nn.Module, pivots: Any) -> tuple[Site, ...]:
    """The sites that a user names, each once, whether or not the model will come by them.

    Args:
        model: The model.
        pivots: A name or a site, or several.

    Raises:
        SiteError: Nothing is named, or something else than a module of the model.
    """
    paths = paths_of(model)
    if isinstance(pivots, (str, Site, nn.Module)):
        pivots = [pivots]
    try:
        each: list[Any] = list(pivots)
    except Exception as error:  # nothing to go over, or something that fails at it
        raise SiteError(
            f"pivots={pivots!r:.80} names no site. Pass a name, a list of names, or 'auto'."
        ) from error
    found: list[Site] = []
    for pivot in each:
        if isinstance(pivot, nn.Module):
            name = paths.get(id(pivot))
            hint = f"Pass its name, {name!r}." if name else "It is no part of the model."
            raise SiteError(f"A pivot is a {type(pivot).__name__}, not a name. {hint}")
        if not isinstance(pivot, (str, Site)):
            raise SiteError(f"A pivot is {pivot!r:.80}: pass the name of a site, such as 'input'.")
        site = Site.of(pivot)
        if site.module != INPUT and site.module not in set(paths.values()) - {""}:
            hint = did_you_mean(site.module, {INPUT, *paths.values()} - {""})
            raise SiteError(f"There is no site {site.module!r:.80}. {hint}")
        found.append(site)
    if not found:
        raise SiteError("pivots is empty. Name at least one site, or pass pivots='auto'.")
    return tuple(dict.fromkeys(found))
