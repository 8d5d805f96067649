"""Finding every place where a pivot can sit."""

from __future__ import annotations

from torch import nn

from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.recorder import record
from feedback_adapter.sites.rows import not_by_image
from feedback_adapter.sites.site import INPUT, Site, SiteInfo, layout_of

__all__ = ["discover"]


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
