"""A number per channel instead of a whole map: would smaller pivots gain more?

    python benchmarks/channel_pivots.py --data FOLDER    # with flickr8k in it

On caption-words-lite0's dev split, half of the words known, at conv_head (1,280 channels, 5 x 5):
gradient descent on the map, on a bias or a scale per channel, or on both. For each the best of
the step sizes tried, up to ten steps. Nothing of it is in the library: the map is as good.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from choose_pivots import BATCH, Half
from torch import Tensor

from feedback_adapter.batches import split

STEPS = 10
SIZES = {
    "map": (30.0, 100.0, 300.0, 600.0),
    "bias": (1.0, 3.0, 10.0, 30.0),
    "scale": (0.3, 1.0, 2.0, 4.0),
    "scale and bias": (0.3, 1.0, 2.0, 4.0),
}
EDITS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "map": lambda z, bias, _: z + bias,
    "bias": lambda z, bias, _: z + bias,
    "scale": lambda z, _, scale: z * (1 + scale),
    "scale and bias": lambda z, bias, scale: z * (1 + scale) + bias,
}


def gains(half: Half, activations: Tensor, kind: str, size: float) -> list[float]:
    """What mAP of the unknown half gains after 1, 2, ... steps."""
    model = half.adapter.model
    found: list[list[Tensor]] = [[] for _ in range(STEPS)]
    for rows in split(len(activations), BATCH):
        z, truth = activations[rows], half.truth[rows][:, half.known].float()
        shape = z.shape if kind == "map" else (*z.shape[:2], 1, 1)
        own = [torch.zeros(shape), torch.zeros(*z.shape[:2], 1, 1)]
        for step in range(STEPS):
            own = [value.requires_grad_() for value in own]
            logits = _tail(model, EDITS[kind](z, *own))[:, half.known]
            loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
            slopes = torch.autograd.grad(loss, own, allow_unused=True)
            own = [
                value.detach() - (0 if slope is None else size * slope)
                for value, slope in zip(own, slopes, strict=True)
            ]
            with torch.no_grad():
                found[step].append(_tail(model, EDITS[kind](z, *own)))
    unrefined = half.score(half.logits)
    return [half.score(torch.cat(logits)) - unrefined for logits in found]


def _tail(model: torch.nn.Module, z: Tensor) -> Tensor:
    for part in ("bn2", "global_pool", "classifier"):
        z = model.get_submodule(part)(z)
    return z


def main(
    data: Annotated[Path, typer.Option(help="Folder with flickr8k.")],
) -> None:
    """Measure and print a table."""
    half = Half(data)
    model = half.adapter.model.requires_grad_(False)
    with torch.no_grad():
        parts = [
            model.conv_head(model.blocks(model.bn1(model.conv_stem(half.photos[rows]))))
            for rows in split(len(half.photos), BATCH)
        ]
    print("| pivot | best gain in mAP | step size x steps |\n| --- | --- | --- |")
    for kind, sizes in SIZES.items():
        tried = {size: gains(half, torch.cat(parts), kind, size) for size in sizes}
        size = max(tried, key=lambda size: max(tried[size]))
        best = max(tried[size])
        print(f"| {kind} | {best:+.2f} | {size:g} x {tried[size].index(best) + 1} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
