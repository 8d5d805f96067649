"""Running the jobs of a table side by side; what is done is kept, and a later run goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rows import Measured, write
from safetensors.torch import save_file

from fa_dfm import DFM

__all__ = ["Job", "run", "time_left"]

SPARE = 25.0
"""Seconds at the end of the time limit in which no network is trained."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The networks that one seed needs for some rows of a table.

    Args:
        table: Name of the table.
        method: Name of the method.
        seed: Of the training.
        settings: What the table's own `work` needs beside these, as plain data.
    """

    table: str
    method: str
    seed: int
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name under which its numbers are kept; settings that change them are part of it."""
        marks = json.dumps(self.settings, default=str, sort_keys=True)
        digest = hashlib.sha256(marks.encode()).hexdigest()[:8]
        return f"{_slug(f'{self.table} {self.method} {self.seed}')}-{digest}.json"


Work = Callable[[Job, float | None], tuple[list[Measured], dict[str, DFM]]]
"""Does a job before a moment on the clock (`time.time`); returns numbers and networks to keep."""


def run(
    jobs: Sequence[Job],
    work: Work,
    out: Path,
    *,
    workers: int = 1,
    seconds: float | None = None,
    notes: dict[str, Any] | None = None,
    console: Console | None = None,
) -> list[Measured]:
    """Do the jobs in their order; a job that fails is reported and the others go on.

    Jobs whose numbers are there from an earlier run aren't done again.

    Args:
        jobs: The most important first.
        work: A function of a module.
        out: The folder for `TABLE.json`, for each job's numbers, in
            `parts/`, and for the networks, in `weights/`.
        workers: Processes.
        seconds: No job begins later than this, and trainings end before it.
        notes: What else the table says.
        console: Where progress is told.
    """
    console = console or Console()
    deadline = None if seconds is None else time.time() + seconds
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not (parts / job.file).is_file()]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        running = {pool.submit(_guarded, work, job, deadline, out / "weights"): job for job in todo}
        for number, done in enumerate(as_completed(running), 1):
            job = running[done]
            try:
                found, text = done.result()
            except Exception as error:  # a worker that died takes no other job with it
                found, text = [], f"failed: {error!r}"
            console.print(f"{number}/{len(todo)} {job.table} {job.method} {job.seed}: {text}")
            if found:
                lines = [dataclasses.asdict(one) for one in found]
                (parts / job.file).write_text(json.dumps(lines, indent=1) + "\n")
    measured = [
        Measured(**one)
        for job in jobs
        if (parts / job.file).is_file()
        for one in json.loads((parts / job.file).read_text())
    ]
    if measured:
        write(out / f"{jobs[0].table}.json", measured, notes)
    return measured


def time_left(deadline: float | None, networks: int = 1) -> float | None:
    """Seconds that each of so many networks may train, or `None` without a limit."""
    return None if deadline is None else max((deadline - time.time() - SPARE) / networks, 1.0)


def _guarded(
    work: Work, job: Job, deadline: float | None, weights: Path
) -> tuple[list[Measured], str]:
    if deadline is not None and time.time() > deadline - SPARE:
        return [], "left out, no time"
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    begun = time.monotonic()
    try:
        measured, networks = work(job, deadline)
        weights.mkdir(parents=True, exist_ok=True)
        for name, net in networks.items():
            file = _slug(f"{job.table} {name} {job.seed}")
            state = {k: v.contiguous().cpu() for k, v in net.state_dict().items()}
            save_file(state, weights / f"{file}.safetensors")
    except Exception:
        return [], f"failed: {traceback.format_exc()[-2000:]}"
    text = f"{time.monotonic() - begun:.0f} s"
    first = ", ".join(f"{one.condition}: {one.value:.1f}" for one in measured[:3])
    return measured, f"{text}; {first}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())
