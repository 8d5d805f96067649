"""What a refinement looks like on the page, as JSON can hold it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from fa_annotate.evidence import Label
from fa_annotate.maps import map_picture, seen
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement

__all__ = ["described", "entropy", "unsure"]


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
        `overlays`: pictures of maps; `captions`: texts that the model writes; `how`: what the
        refinement did.
    """
    old, new = _shares(before), _shares(after)
    overlays = [
        {
            "output": name,
            "before": map_picture(seen(before[name][0], spec)),
            "after": map_picture(seen(after[name][0], spec)),
        }
        for name, spec in before.specs.items()
        if spec.kind == "map"
    ]
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


def entropy(p: float) -> float:
    """How little is known of a label that holds with this probability, in nats."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def unsure(outputs: Outputs) -> float:
    """How little a model is sure of one photo: the entropy of its labels, in nats, added up."""
    total = 0.0
    for name, spec in outputs.specs.items():
        if spec.kind == "tokens":
            continue
        p = spec.probabilities(outputs[name][0])
        entropies = torch.special.entr(p)
        if not spec.one_holds:
            entropies = entropies + torch.special.entr(1 - p)
        total += float(entropies.sum())
    return total
