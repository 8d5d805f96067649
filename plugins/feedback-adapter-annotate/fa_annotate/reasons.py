"""Why a label moved, and where the network changed, as the page shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fa_annotate.errors import AnnotateError
from fa_annotate.maps import heat_picture
from feedback_adapter.prepared import Prepared
from feedback_adapter.refinement import Refinement

if TYPE_CHECKING:
    from feedback_adapter import Explanation

__all__ = ["heat", "why"]


def why(explanation: Explanation) -> dict[str, Any]:
    """What an explanation says.

    Returns:
        `before` and `after`, probabilities; `rows`: of each answer what it moved the probability
        by; `exact`: whether that is exact; and `heat`, a picture of the places that the move comes
        from, where the strategy changed the network (`changed`), else of those that the unrefined
        network looks at; or `None`.
    """
    before, after = torch.tensor([explanation.before, explanation.after]).sigmoid().tolist()
    maps, places = explanation.maps, None
    if maps is not None:
        places = maps.before.clamp(min=0) if maps.change is None else maps.change.abs()
    return {
        "label": explanation.label,
        "before": before,
        "after": after,
        "rows": [
            {"evidence": row.evidence, "share": row.probability}
            for row in explanation.contributions
        ],
        "exact": explanation.exact,
        "strategy": explanation.strategy,
        "pivot": None if maps is None else maps.pivot,
        "changed": maps is not None and maps.change is not None,
        "heat": None if places is None else heat_picture(places),
    }


def heat(result: Refinement, prepared: Prepared) -> dict[str, Any]:
    """Where the first pivot's activation changed.

    Args:
        result: Of one image, with its activations.
        prepared: What it was refined from.

    Returns:
        `pivot`, its name, and `heat`, a picture of the length of the change at each place.

    Raises:
        AnnotateError: The strategy moves no pivot, or the pivot has no grid of places.
    """
    for place, site in enumerate(prepared.pivots):
        moved = (result.activations or {}).get(site.name)
        if moved is None:
            continue
        was = prepared.from_pivots(prepared.pivots).activations[place]
        change = _by_place((moved - was)[0].detach().float().cpu())
        return {"pivot": site.name, "heat": heat_picture(change)}
    raise AnnotateError(
        f"The strategy {result.strategy!r} moves no activation. Choose newton or residual to see "
        "where the network changes."
    )


def _by_place(change: Tensor) -> Tensor:
    """The length of an activation's change at each place, (height, width).

    Args:
        change: Of one image: (channels, height, width), (height, width, channels) or (tokens,
            channels), where the last tokens are the places of a square grid.
    """
    if change.ndim == 3:
        channels_last = change.shape[2] > change.shape[0]
        return change.norm(dim=2 if channels_last else 0)
    if change.ndim == 2:
        side = int(change.shape[0] ** 0.5)
        return change[-side * side :].norm(dim=1).unflatten(0, (side, side))
    raise AnnotateError("The activation that changes has no grid of places to show.")
