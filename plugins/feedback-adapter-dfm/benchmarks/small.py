"""One job of the tables on triangles: train a method with one seed, and score it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from binary import score
from methods import SMALL
from pool import Job, Running
from rows import Measured
from sampling import clicks, scattered
from triangle_task import Task, train

from fa_dfm import DFM

__all__ = ["ENSEMBLE", "METHODS", "ORDER", "work"]

ENSEMBLE = 7
"""Feedforward networks that do as many multiply-adds as the loop."""

METHODS = SMALL | {
    "ensemble": SMALL["feedforward"],
    "loop, all gradients": dataclasses.replace(SMALL["loop"], truncate=False),
    "loop, batch norms": dataclasses.replace(SMALL["loop"], batch_norms=True),
    "feedforward, batch norms": dataclasses.replace(SMALL["feedforward"], batch_norms=True),
}

ORDER = (
    *("loop", "feedforward", "untied", "ensemble"),
    *("unet", "unet loop", "loop, all gradients", "published"),
    *("loop, batch norms", "feedforward, batch norms"),
)
"""The methods of the tables, the most important first: time may end before the last."""


def _pixels(_white: Any, meant: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    share = torch.full((len(meant),), 0.01, device=meant.device)
    return scattered(share, (meant.shape[2], meant.shape[3]), generator)


def _clicks(inside: int, outside: int) -> Callable[..., torch.Tensor]:
    def tell(white: torch.Tensor, meant: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        every = torch.ones(len(meant), dtype=torch.long, device=meant.device)
        told = clicks(meant[:, 0] > 0, inside * every, inside, generator)
        other = (white > meant)[:, 0]
        return told | clicks(other, outside * every, max(outside, 1), generator)

    return tell


def _nothing(*_args: Any) -> None:
    return None


TOLD = {
    False: {"": _nothing, ", 1% of pixels known": _pixels},
    True: {
        ", nothing known": _nothing,
        ", one click": _clicks(1, 0),
        ", three clicks": _clicks(2, 1),
    },
}
"""What is known in the test, for one triangle and for pairs."""


def work(job: Job, running: Running) -> tuple[list[Measured], dict[str, DFM]]:
    """Train a method with one seed and score it."""
    device, sigmas = job.settings["device"], job.settings["sigmas"]
    task, suffix = Task(**job.settings["task"]), job.settings.get("suffix", "")
    count = ENSEMBLE if job.method == "ensemble" else 1
    nets = [
        train(
            METHODS[job.method],
            task,
            job.seed + 100 * i,
            device,
            **running.training(i, count),
        )
        for i in range(count)
    ]
    measured = score(job.method, nets, task, sigmas, TOLD[task.pairs], job.seed, device)
    measured = [dataclasses.replace(m, condition=m.condition + suffix) for m in measured]
    return measured, {f"{job.method} {task.side}{suffix}": nets[0]} if count == 1 else {}
