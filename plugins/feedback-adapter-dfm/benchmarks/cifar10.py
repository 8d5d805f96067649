"""CIFAR-10: accuracy where one look sees the whole image, so that little is expected of more."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import cifar10_task
import photos
import typer
from command import HERE, Data, Device, Out, Seconds, Seeds, Workers
from pool import Job, Running, run
from rows import Measured

from fa_dfm import DFM

ENSEMBLE = 4
"""Feedforward networks that do as many multiply-adds as the loop."""


@functools.cache
def _photos(folder: Path, split: str, device: str, limit: int | None) -> cifar10_task.Photos:
    return cifar10_task.read(folder, split, device, limit)


def work(job: Job, running: Running) -> tuple[list[Measured], dict[str, DFM]]:
    """Train a method with one seed and score it."""
    options = job.settings
    train, test = (
        _photos(options["data"], part, options["device"], options["limit"])
        for part in ("train", "test")
    )
    count = ENSEMBLE if job.method == "ensemble" else 1
    method = cifar10_task.METHODS["feedforward" if job.method == "ensemble" else job.method]
    nets = [
        cifar10_task.train(
            method,
            train,
            job.seed + 100 * i,
            options["epochs"],
            control=options["control"],
            batch=options["batch"],
            **running.training(i, count),
        )
        for i in range(count)
    ]
    measured = photos.score(job.method, nets, test, job.seed)
    if count > 1:  # the first is what `feedforward` would train
        measured += photos.score("feedforward", nets[:1], test, job.seed)
    return measured, {"feedforward" if count > 1 else job.method: nets[0]}


def main(
    data: Data,
    out: Out = HERE / "results",
    device: Device = "cpu",
    seeds: Seeds = 3,
    epochs: float = 12.0,
    workers: Workers = 1,
    seconds: Seconds = None,
    each: float = 600.0,
    batch: int = cifar10_task.BATCH,
    control: Path | None = None,
    limit: int | None = None,
) -> None:
    """Train and score every method on CIFAR-10.

    `each` is the most seconds that one network trains, `batch` the images of a training step,
    `control` a safetensors file with a trained `feedforward`, from which all start where it is
    given, and `limit` the images of a split.
    """
    options = {
        "data": data,
        "device": device,
        "epochs": epochs,
        "each": each,
        "batch": batch,
        "control": control,
        "limit": limit,
    }
    names = ("loop", "ensemble", "untied")  # `ensemble` measures `feedforward`, too
    jobs = [Job("cifar10", name, seed, options) for seed in range(seeds) for name in names]
    run(jobs, work, out, workers=workers, seconds=seconds)


if __name__ == "__main__":
    typer.run(main)
