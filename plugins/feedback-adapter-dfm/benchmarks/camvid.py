"""CamVid: mean IoU of the pixels that nobody labelled, with and without evidence."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import camvid_task
import scenes
import typer
from camvid_nets import METHODS
from command import HERE, Data, Device, Only, Out, Seconds, Seeds, Steps, Workers
from pool import Job, Running, run
from rows import Measured

from fa_dfm import DFM

ENSEMBLE = 4
"""Feedforward networks that do as many multiply-adds as the loop."""

NAMES = ("loop", "ensemble", "untied", "unet")
"""Each with every seed; `ensemble` measures `feedforward`, its first network, too."""

FROM_CONTROL = {
    "loop": "loop",
    "ensemble": "feedforward",
    "untied": "untied",
    "unet": "unet around the control",
    "feedforward": "feedforward",
}
"""The networks, by row, that have all layers of `feedforward`, and can start from it."""

ONCE = ("loop, resnet18d from scratch", "loop, to stride 16", "feedforward, to stride 16")
"""Trained with one seed, to choose on the validation frames."""


@functools.cache
def _frames(folder: Path, split: str, device: str, limit: int | None) -> camvid_task.Frames:
    return camvid_task.read(folder, split, device, limit)


def work(job: Job, running: Running) -> tuple[list[Measured], dict[str, DFM]]:
    """Train a method with one seed, and score it on validation and test frames."""
    options = job.settings
    train, val, test = (
        _frames(options["data"], part, options["device"], options["limit"])
        for part in ("train", "val", "test")
    )
    count = ENSEMBLE if job.method == "ensemble" else 1
    networks = FROM_CONTROL if options["control"] else {"ensemble": "feedforward"}
    method = METHODS[networks.get(job.method, job.method)]
    nets = [
        camvid_task.train(
            method,
            train,
            job.seed + 100 * i,
            options["steps"],
            options["weights"],
            control=options["control"],
            batch=options["batch"],
            **running.training(i, count),
        )
        for i in range(count)
    ]
    measured = scenes.score(job.method, nets, test, job.seed)
    if count > 1:  # the first is what `feedforward` would train
        measured += scenes.score("feedforward", nets[:1], test, job.seed)
    on_validation = scenes.score_way(job.method, nets, val, job.seed, {})
    measured += [_on_validation(one) for one in on_validation]
    return measured, {"feedforward" if count > 1 else job.method: nets[0]}


def _on_validation(one: Measured) -> Measured:
    return Measured(**{**vars(one), "condition": f"{one.condition}, validation"})


def main(
    data: Data,
    out: Out = HERE / "results",
    device: Device = "cpu",
    seeds: Seeds = 3,
    steps: Steps = 2500,
    workers: Workers = 1,
    seconds: Seconds = None,
    each: float = 600.0,
    batch: int = 16,
    weights: Path | None = None,
    control: Path | None = None,
    limit: int | None = None,
    only: Only = None,
) -> None:
    """Train and score every method on CamVid's own split.

    `weights` is a safetensors file with EfficientNet-lite0's ImageNet weights, `control` one with
    a trained `feedforward`, from which the networks start that have its layers, `each` the most
    seconds that one network trains, `batch` the frames of a training step, `limit` the frames of
    a split.
    """
    options = {
        "data": data,
        "device": device,
        "steps": steps,
        "each": each,
        "batch": batch,
        "weights": weights,
        "control": control,
        "limit": limit,
    }
    wrong = sorted(set(only or ()) - set(FROM_CONTROL)) if control else []
    if wrong:
        raise typer.BadParameter(
            f"{wrong} can't start from a control; possible are {', '.join(FROM_CONTROL)}."
        )
    if control and weights is None and "unet" in (only or NAMES):
        raise typer.BadParameter(
            "The U-Net's later stages start from ImageNet: give --weights, or the others by --only."
        )
    jobs = [
        Job("camvid", name, seed, options)
        for seed in range(seeds)
        for name in only or (NAMES if control or seed else NAMES + ONCE)
    ]
    run(jobs, work, out, workers=workers, seconds=seconds)


if __name__ == "__main__":
    typer.run(main)
