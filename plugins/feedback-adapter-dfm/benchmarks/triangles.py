"""Noisy triangles: foreground IoU of every method at three noises, in two sizes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import typer
from command import HERE, Device, Out, Seconds, Seeds, Steps, Test, Workers
from pool import Job, run
from small import work

METHODS = ("loop", "ensemble", "untied", "loop, all gradients", "unet", "unet loop", "published")


def main(
    out: Out = HERE / "results",
    device: Device = "cpu",
    seeds: Seeds = 3,
    steps: Steps = 1000,
    workers: Workers = 1,
    seconds: Seconds = None,
    test: Test = 400,
) -> None:
    """Train and score every method on single triangles of 48 and of 64 pixels a side."""
    jobs = [
        Job(
            "triangles",
            method,
            seed,
            {
                "task": {"side": side, "steps": steps, "test": test},
                "sigmas": (1, 2, 3, 4),
                "device": device,
            },
        )
        for side in (48, 64)
        for seed in range(seeds)
        for method in METHODS
    ]
    run(jobs, work, out, workers=workers, seconds=seconds)


if __name__ == "__main__":
    typer.run(main)
