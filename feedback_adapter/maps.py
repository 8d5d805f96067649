"""What results say of maps: shares of pixels, and masks as run lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from feedback_adapter.changes import Change, MapChange
from feedback_adapter.outputs import Output

__all__ = ["changes_of", "masks_of", "predicted", "run_lengths"]


def predicted(logits: Tensor, spec: Output) -> Tensor:
    """Which labels a model sees at each pixel, (labels, height, width) bool.

    Where labels exclude each other it is the likeliest one, else each that is likelier than not.

    Args:
        logits: (labels, height, width), of one image.
        spec: What the output is.
    """
    if not spec.one_holds:
        return logits > 0
    numbers = torch.arange(len(spec.labels), device=logits.device)
    return logits.argmax(0) == numbers[:, None, None]


def changes_of(
    name: str, spec: Output, before: Tensor, after: Tensor, known: Tensor, present: Tensor
) -> list[Change]:
    """For each label of a map its share of one image's pixels, before and after.

    Args:
        name: Of the output.
        spec: What it is.
        before: Logits (labels, height, width).
        after: The same after refinement.
        known: Of that form, bool: which labels of which pixels are known.
        present: Of that form, bool: which are known to be there.
    """
    old, new = (predicted(z, spec).flatten(1).float().mean(1).tolist() for z in (before, after))
    told = known.flatten(1).sum(1).tolist()
    there = present.flatten(1).any(1).tolist()
    whole = known[0].numel()
    found: list[Change] = []
    for label, share, later, count, holds in zip(spec.labels, old, new, told, there, strict=True):
        is_known = bool(count or holds)
        nowhere = count == whole and not holds
        holds = None if not is_known else bool(holds)
        found.append(MapChange(name, label, share, later, is_known, holds, count, nowhere))
    return found


def masks_of(spec: Output, before: Tensor, after: Tensor) -> dict[str, dict[str, Any]]:
    """`{label: {"before": run lengths, "after": run lengths}}` of the labels that are seen.

    Args:
        spec: What the output is.
        before: Logits (labels, height, width).
        after: The same after refinement.
    """
    old, new = predicted(before, spec).cpu(), predicted(after, spec).cpu()
    seen = (old | new).flatten(1).any(1).tolist()
    return {
        label: {"before": run_lengths(old[row]), "after": run_lengths(new[row])}
        for row, label in enumerate(spec.labels)
        if seen[row]
    }


def run_lengths(mask: Tensor) -> dict[str, list[int]]:
    """A mask as COCO writes it: `{"size": [height, width], "counts": [...]}`.

    The counts are of pixels that aren't in the mask, that are, that aren't, and so on, down the
    first column, then the second.

    Args:
        mask: (height, width) bool.

    Example:
        >>> run_lengths(torch.tensor([[True, False], [True, True]]))
        {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    """
    flat = mask.T.reshape(-1)
    edges = torch.cat([flat[:1], flat[1:] ^ flat[:-1]]).nonzero()[:, 0].tolist()
    ends = [*edges, flat.numel()]
    counts = [end - start for start, end in zip([0, *edges], ends, strict=True)]
    return {"size": list(mask.shape), "counts": counts}
