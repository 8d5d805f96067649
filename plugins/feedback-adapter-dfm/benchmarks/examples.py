"""How the number of training images matters, from 2 to 32, and noise beyond training."""

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
) -> None:
    """Train with few images and noise up to 2, and score at noise 1 to 4."""
    jobs = [
        Job(
            "examples",
            method,
            seed,
            {
                "task": {"examples": examples, "sigma": 2.0, "steps": steps, "test": test},
                "sigmas": (1, 2, 3, 4),
                "device": device,
                "suffix": f", {examples} examples",
            },
        )
        for seed in range(seeds)
        for method in only or ORDER[:6]
        for examples in (2, 4, 8, 16, 32)
    ]
    run(jobs, work, out, workers=workers, seconds=seconds)


if __name__ == "__main__":
    typer.run(main)
