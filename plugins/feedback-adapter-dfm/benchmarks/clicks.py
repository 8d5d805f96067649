"""Two triangles, of which a click says the one that is meant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import typer
from command import HERE, Device, Only, Out, Seconds, Seeds, Steps, Test, Workers
from pool import Job, run
from small import ORDER, work

Side = Annotated[int, typer.Option(min=16, help="Of the images, in pixels; a multiple of 4.")]
Examples = Annotated[int, typer.Option(min=1, help="Training images.")]


def main(
    out: Out = HERE / "results",
    device: Device = "cpu",
    seeds: Seeds = 3,
    steps: Steps = 1200,
    workers: Workers = 1,
    seconds: Seconds = None,
    test: Test = 400,
    side: Side = 48,
    examples: Examples = 16,
    only: Only = None,
) -> None:
    """Train and score every method on pairs of triangles."""
    task = {
        "side": side,
        "pairs": True,
        "examples": examples,
        "sigma": 1.0,
        "steps": steps,
        "test": test,
    }
    jobs = [
        Job("clicks", method, seed, {"task": task, "sigmas": (0.5, 1), "device": device})
        for seed in range(seeds)
        for method in only or ORDER[:8]
    ]
    run(jobs, work, out, workers=workers, seconds=seconds)


if __name__ == "__main__":
    typer.run(main)
