"""What results say of maps: shares of pixels, and masks as run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from feedback_adapter.changes import Change, MapChange
from feedback_adapter.map_pictures import MapPicture
from feedback_adapter.outputs import Output, Outputs


def predicted(logits: Tensor, spec: Output) -> Tensor:
    """Which labels a model sees at each pixel, (labels, height, width) bool.

    Logits are of that form, too. Where labels exclude each other it is the likeliest one, else
    each that is likelier than not.
    """
    if not spec.one_holds:
        return logits > 0
    numbers = torch.arange(len(spec.labels), device=logits.device)
    return logits.argmax(0) == numbers[:, None, None]


def changes_of(
    name: str, spec: Output, before: Tensor, after: Tensor, known: Tensor, present: Tensor
) -> list[Change]:
    """For each label of a map its share of one image's pixels, before and after.

    Logits and masks are (labels, height, width): which labels of which pixels are known, and
    which of them are known to be there.
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


def masks_of(before: Outputs, after: Outputs, image: int) -> dict[str, Any]:
    """The masks of one image's maps before and after, as run lengths, of the labels that are seen.

    Returns:
        `{"masks": {output: {label: {"before": run lengths, "after": run lengths}}}}`, or nothing
        where no output is a map.
    """
    found: dict[str, Any] = {}
    for name, spec, old, new in _seen(before, after, image):
        seen = (old | new).flatten(1).any(1).tolist()
        found[name] = {
            label: {"before": run_lengths(old[row]), "after": run_lengths(new[row])}
            for row, label in enumerate(spec.labels)
            if seen[row]
        }
    return {"masks": found} if found else {}


def pictures_of(
    before: Outputs, after: Outputs, known: Mapping[str, Tensor], image: int
) -> list[MapPicture]:
    """What to draw of one image's maps; nothing where no output is a map."""
    pictures: list[MapPicture] = []
    for name, spec, old, new in _seen(before, after, image):
        mask = known[name][image].cpu()
        some = mask & ~mask.flatten(1).all(1)[:, None, None]  # not what is known to be nowhere
        pictures.append(MapPicture(name, spec.labels, old, new, some.any(0)))
    return pictures


def _seen(
    before: Outputs, after: Outputs, image: int
) -> Iterator[tuple[str, Output, Tensor, Tensor]]:
    """Of each map its name, what it is, and which labels are seen where, before and after."""
    for name, spec in before.specs.items():
        if spec.kind == "map":
            old, new = (predicted(outputs[name][image], spec) for outputs in (before, after))
            yield name, spec, old.cpu(), new.cpu()


def run_lengths(mask: Tensor) -> dict[str, list[int]]:
    """A mask as COCO writes it: `{"size": [height, width], "counts": [...]}`.

    The counts are of pixels that aren't in the mask, that are, that aren't, and so on, down the
    first column, then the second.

    Example:
        >>> run_lengths(torch.tensor([[True, False], [True, True]]))
        {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    """
    flat = mask.T.reshape(-1)
    edges = torch.cat([flat[:1], flat[1:] ^ flat[:-1]]).nonzero()[:, 0].tolist()
    ends = [*edges, flat.numel()]
    counts = [end - start for start, end in zip([0, *edges], ends, strict=True)]
    return {"size": list(mask.shape), "counts": counts}
