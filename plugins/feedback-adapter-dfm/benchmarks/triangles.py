"""Noisy triangles: foreground IoU of every method at three noises, in two sizes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import typer
from command import HERE, Device, Only, Out, Seconds, Seeds, Steps, Test, Workers
from pool import Job, run
from small import ORDER, work


def main(
    out: Out = HERE / "results",
    device: Device = "cpu",
    seeds: Seeds = 3,
    steps: Steps = 1000,
    workers: Workers = 1,
    seconds: Seconds = None,
    test: Test = 400,
    only: Only = None,
    sides: list[int] = [48, 64],  # noqa: B006 - typer's way to take several
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
        for side in sides
        for seed in range(seeds)
        for method in only or ORDER
    ]
    run(jobs, work, out, workers=workers, seconds=seconds)


if __name__ == "__main__":
    typer.run(main)
