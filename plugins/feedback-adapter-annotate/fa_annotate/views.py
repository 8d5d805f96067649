"""What a refinement looks like on the page, as JSON can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fa_annotate.evidence import Label
from fa_annotate.maps import map_picture, seen
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement

__all__ = ["described"]


def described(
    before: Outputs, after: Outputs, result: Refinement | None, labels: Sequence[Label]
) -> dict[str, Any]:
    """One photo's predictions without and with what was answered.

    Args:
        before: The unrefined model's, of one image.
        after: The refined ones.
        result: Where they come from; `None` where nothing was answered.
        labels: In the order of the lists in the result.

    Returns:
        `before` and `after`: a probability for each label, of maps the share of the pixels;
        `overlays`: pictures of maps, and the share of the pixels that changed; `captions`: texts
        that the model writes; `how`: what the refinement did.
    """
    old, new = _shares(before), _shares(after)
    overlays: list[dict[str, Any]] = []
    for name, spec in before.specs.items():
        if spec.kind != "map":
            continue
        was, now = seen(before[name][0], spec), seen(after[name][0], spec)
        changed = float((was ^ now).any(0).float().mean())
        pictures = {"before": map_picture(was), "after": map_picture(now)}
        overlays.append({"output": name, "changed": changed, **pictures})
    return {
        "before": [old[label.output][label.index] for label in labels],
        "after": [new[label.output][label.index] for label in labels],
        "overlays": overlays,
        "captions": {} if result is None else result.to_dict(0)["images"][0].get("captions", {}),
        "how": None if result is None else _how(result),
    }


def _shares(outputs: Outputs) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, spec in outputs.specs.items():
        if spec.kind == "map":
            found[name] = seen(outputs[name][0], spec).flatten(1).float().mean(1).tolist()
        elif spec.kind != "tokens":
            found[name] = spec.probabilities(outputs[name][0]).tolist()
    return found


def _how(result: Refinement) -> dict[str, Any]:
    return {
        "strategy": result.strategy,
        "pivots": list(result.pivots),
        "losses": [round(loss, 6) for loss in result.losses[:, 0].tolist()],
        "steps": int(result.steps[0]),
        "status": result.status[0],
    }
