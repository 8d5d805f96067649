"""CamVid: what knowing pixels is worth, by the core's strategies, looking once and again.

    python benchmarks/known_pixels.py --data FOLDER

For each checkpoint the site and the prior of `newton` are chosen on validation frames.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import torch
import typer
from camvid_nets import CLASSES
from camvid_task import Frames, network_input, read
from command import HERE, Data, Out, Seeds
from methods import parameters
from rich.console import Console
from rows import Measured, write
from scenes import corrections, counts, mean_iou, pixels
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import feedback_adapter as fa

BATCH = 16
SITES = {
    "camvid-feedforward": ("input", "feedback"),
    "camvid-dfm": ("input", "feedback#3"),  # the last look's: nothing before it runs again
}
"""Where `newton` may change what a checkpoint computes."""

PRIORS = (8.0, 32.0, 128.0, 512.0)
CONDITIONS = {"1% of pixels": pixels(0.01), "3 clicks": corrections(3)}
OWN = "evidence channels"
"""The method of the network itself: what is known enters by channels that it was trained with."""


def ways(checkpoint: str) -> dict[str, dict[str, Any]]:
    """The options of `Adapter.refine` that are compared, by the name of the method."""
    found: dict[str, dict[str, Any]] = {OWN: {"strategy": "dfm"}}
    for site, prior in itertools.product(SITES[checkpoint], PRIORS):
        options = {"strategy": "newton", "pivots": site, "prior_std": prior}
        found[f"newton, {site}, prior_std {prior:g}"] = options
    return found


def score(
    adapter: fa.Adapter, name: str, options: dict[str, Any], frames: Frames, seeds: int
) -> list[Measured]:
    """Mean IoU in percent of the pixels that aren't known, and of the same without knowing any.

    Args:
        adapter: Of the network.
        name: Of the method.
        options: Of `Adapter.refine`.
        frames: Of the split that is to be scored.
        seeds: How often pixels are drawn; clicks follow from the predictions, and need one.
    """
    measured = []
    with FlopCounterMode(display=False) as counter:
        click = fa.Pixels(clicks=[(9, 9, "road")])
        adapter.refine(network_input(frames[0][:1]), click, **options)
    for condition, tell in CONDITIONS.items():
        for seed in range(seeds if condition != "3 clicks" else 1):
            generator = torch.Generator().manual_seed(77 + seed)
            after, before = counts(), counts()
            for i in range(0, len(frames[0]), BATCH):
                images, labels = network_input(frames[0][i : i + BATCH]), frames[1][i : i + BATCH]

                def predict(
                    told: Tensor, images: Tensor = images, labels: Tensor = labels
                ) -> Tensor:
                    mask = torch.where(told, labels, 255)
                    return adapter.refine(images, fa.Pixels(mask), **options).after.argmax(1)

                alone = adapter.predict(images).argmax(1)
                told = tell(predict, alone, labels, generator)
                left = torch.where(told, CLASSES, labels)
                after += counts(predict(told), left)
                before += counts(alone, left)
            for metric, found in (("mIoU", after), ("mIoU before", before)):
                value, size = mean_iou(found), parameters(adapter.model)
                macs = counter.get_total_flops() // 2
                measured.append(Measured(name, condition, metric, value, seed, macs, size))
    return measured


def gain(measured: list[Measured]) -> float:
    """The smaller of the gains of the two conditions, in points."""
    values = {(one.condition, one.metric): one.value for one in measured}
    return min(values[c, "mIoU"] - values[c, "mIoU before"] for c in CONDITIONS)


def main(
    data: Data,
    out: Out = HERE / "results",
    seeds: Seeds = 3,
    every: Annotated[int, typer.Option(min=1, help="Step from test frame to test frame.")] = 4,
) -> None:
    """Choose how `newton` refines the checkpoints' predictions, and score that."""
    torch.set_num_threads(1)
    console, begun = Console(), time.monotonic()
    val = tuple(part[:: 2 * every] for part in read(data, "val", "cpu"))
    test = tuple(part[::every] for part in read(data, "test", "cpu"))
    rows = []
    for checkpoint in SITES:
        adapter, compared = fa.load(checkpoint), ways(checkpoint)
        best = (float("-inf"), OWN)
        for way, options in compared.items():
            name = f"{checkpoint}: {way}"
            found = score(adapter, name, options, val, 1)
            if way != OWN:
                best = max(best, (gain(found), way))
            rows += [
                Measured(**{**vars(m), "condition": f"{m.condition}, validation"}) for m in found
            ]
            console.print(f"{time.monotonic() - begun:.0f} s, {name}: {gain(found):+.2f} at least")
        for way in (OWN, best[1]):
            rows += score(adapter, f"{checkpoint}: {way}", compared[way], test, seeds)
        console.print(f"{checkpoint}: chosen: {best[1]}")
    frames = {"validation": len(val[0]), "test": len(test[0])}
    write(out / "known_pixels.json", rows, {"frames": frames})


if __name__ == "__main__":
    typer.run(main)
