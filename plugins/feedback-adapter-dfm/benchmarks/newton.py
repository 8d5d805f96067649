"""Triangles: what `newton` makes of the same known pixels, on the zoo's networks.

    python benchmarks/newton.py

Site, prior and threshold are chosen on validation images, as in the other rows.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import torch
import typer
from binary import THRESHOLDS, iou, prepare
from command import HERE, Out, Test
from methods import parameters
from rich.console import Console
from rows import Measured, write
from small import TOLD
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from triangle_task import Scenes, Task, masks

import feedback_adapter as fa
from fa_dfm import Known

BATCH = 50
SITES = ("input", "feedback")
PRIORS = (2.0, 8.0, 32.0, 128.0, 512.0, 2048.0)
CASES = (
    ("triangles", 2.0, ", 1% of pixels known"),
    ("triangles", 3.0, ", 1% of pixels known"),
    ("triangles-clicks", 0.5, ", one click"),
    ("triangles-clicks", 1.0, ", one click"),
)
"""Of the zoo's checkpoints the names' beginning, the noise, and what is known."""

METHODS = {"loop": "dfm", "feedforward": "feedforward"}
"""How the checkpoints' names end."""


def refined(adapter: fa.Adapter, images: Tensor, mask: Tensor, options: dict[str, Any]) -> Tensor:
    """Logits (batch, 1, height, width) once pixels are known; 255 in the mask means unknown."""
    parts = zip(images.split(BATCH), mask.split(BATCH), strict=True)
    return torch.cat([adapter.refine(i, fa.Pixels(m), **options).after for i, m in parts])


def mask_of(scenes: Scenes, facts: Known) -> Tensor:
    """The known labels (batch, height, width), 255 elsewhere."""
    return torch.where(facts.weight[:, 0] > 0, scenes.meant[:, 0].long(), 255)


def main(out: Out = HERE / "results", test: Test = 400) -> None:
    """Score `newton` on the networks that look again and on those that look once."""
    torch.set_num_threads(1)
    console, measured = Console(), []
    for (kind, sigma, told), (method, end) in itertools.product(CASES, METHODS.items()):
        adapter, pairs = fa.load(f"{kind}-{end}"), kind == "triangles-clicks"
        tell = TOLD[pairs][told]
        val, tested = (
            masks(Task(pairs=pairs), n, s, "cpu") for n, s in ((test // 4, 8), (test, 7))
        )
        seen, seen_facts = prepare(val, sigma, tell, 50)
        chosen: tuple[float, float, dict[str, Any]] = (-1.0, 0.0, {})
        for site, prior in itertools.product(SITES, PRIORS):
            options = {"strategy": "newton", "pivots": site, "prior_std": prior}
            logits = refined(adapter, seen, mask_of(val, seen_facts), options)
            scores = [(iou(logits, val.meant, seen_facts, t), t) for t in THRESHOLDS]
            chosen = max(chosen, (*max(scores), options), key=lambda one: one[0])
        images, facts = prepare(tested, sigma, tell, 51)
        mask, (best, threshold, options) = mask_of(tested, facts), chosen
        with FlopCounterMode(display=False) as counter:
            refined(adapter, images[:1], mask[:1], options)
        value = iou(refined(adapter, images, mask, options), tested.meant, facts, threshold)
        condition, macs = f"48 px, sigma {sigma:g}{told}", counter.get_total_flops() // 2
        size = parameters(adapter.model)
        measured.append(Measured(f"{method}, newton", condition, "IoU", value, 0, macs, size))
        console.print(f"{condition}, {method}: {value:.1f} (validation {best:.1f}, {options})")
    write(out / "newton.json", measured)


if __name__ == "__main__":
    typer.run(main)
