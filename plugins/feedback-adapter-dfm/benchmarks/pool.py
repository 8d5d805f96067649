"""Running the jobs of a table side by side; what is done is kept, and a later run goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
import traceback
from collections.abc import Callable, Generator, MutableMapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rows import Measured, write
from safetensors.torch import save_file

from fa_dfm import DFM

__all__ = ["Job", "Running", "run"]

SPARE = 25.0
"""Seconds at the end of the time limit in which no network is trained."""

POLL = 0.5
"""Seconds between two looks at how far the trainings are."""


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
    def name(self) -> str:
        """What a reader of the progress sees."""
        return f"{self.table} {self.method} {self.seed}"

    @property
    def file(self) -> str:
        """The name under which its numbers are kept; settings that change them are part of it."""
        marks = json.dumps(self.settings, default=str, sort_keys=True)
        digest = hashlib.sha256(marks.encode()).hexdigest()[:8]
        return f"{_slug(self.name)}-{digest}.json"


@dataclasses.dataclass(frozen=True)
class Running:
    """How the trainings of a job are kept, limited and told of.

    Args:
        job: The job.
        states: The folder for the states of trainings, from which a later run goes on.
        told: Is told by job how much of its trainings is done, from 0 to 1, and the last loss.
        deadline: A moment on the clock (`time.time`) before which trainings end.
    """

    job: Job
    states: Path
    told: MutableMapping[str, tuple[float, float]]
    deadline: float | None = None

    def training(self, number: int = 0, count: int = 1) -> dict[str, Any]:
        """Arguments of `fit.fit` for one of the networks of the job.

        Args:
            number: Which, from 0 on.
            count: How many there are.
        """
        each = self.job.settings.get("each")  # the most seconds that one network trains
        limits = [] if each is None else [each]
        if self.deadline is not None:
            limits.append(max((self.deadline - time.time() - SPARE) / (count - number), 1.0))

        def report(share: float, loss: float) -> None:
            self.told[self.job.file] = ((number + share) / count, loss)

        return {
            "seconds": min(limits, default=None),
            "state_file": self.states / f"{Path(self.job.file).stem}-{number}.safetensors",
            "report": report,
        }

    def done(self) -> None:
        """Remove the states: the numbers of the job are kept now."""
        for file in self.states.glob(f"{Path(self.job.file).stem}-*.safetensors"):
            file.unlink()


Work = Callable[[Job, Running], tuple[list[Measured], dict[str, DFM]]]
"""Does a job, and returns its numbers and the networks to keep."""


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

    Jobs whose numbers are there from an earlier run aren't done again, and a training that was
    cut off goes on from its last state.

    Args:
        jobs: The most important first.
        work: A function of a module.
        out: The folder for `TABLE.json`, for each job's numbers, in `parts/`, for the networks,
            in `weights/`, and for trainings that aren't done, in `states/`.
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
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(workers, context) as pool:
        told = manager.dict()
        running = {
            pool.submit(
                _guarded, work, Running(job, out / "states", told, deadline), out / "weights"
            ): job
            for job in todo
        }
        number = 0
        with _bars(console) as bars:
            for done in _completed(running, told, bars):
                job, number = running[done], number + 1
                try:
                    found, text = done.result()
                except Exception as error:  # a worker that died takes no other job with it
                    found, text = [], f"failed: {error!r}"
                console.print(f"{number}/{len(todo)} {job.name}: {text}")
                if found:
                    lines = [dataclasses.asdict(one) for one in found]
                    (parts / job.file).write_text(json.dumps(lines, indent=1) + "\n")
                    Running(job, out / "states", told).done()
    measured = [
        Measured(**one)
        for job in jobs
        if (parts / job.file).is_file()
        for one in json.loads((parts / job.file).read_text())
    ]
    if measured:
        write(out / f"{jobs[0].table}.json", measured, notes)
    return measured


def _bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
    )
    loss = TextColumn("{task.fields[loss]}")
    return Progress(*columns, loss, TimeElapsedColumn(), console=console)


def _completed(
    running: dict[Future[Any], Job], told: MutableMapping[str, tuple[float, float]], bars: Progress
) -> Generator[Future[Any]]:
    """The jobs as they end; meanwhile a bar for all, and one for each that trains."""
    every = bars.add_task("networks", total=len(running), loss="")
    rows: dict[str, TaskID] = {}
    left = set(running)
    while left:
        ended, left = wait(left, POLL, FIRST_COMPLETED)
        now = told.copy()
        for job in running.values():
            if job.file in now and job.file not in rows:
                rows[job.file] = bars.add_task(job.name, total=1.0, loss="")
            if job.file in now:
                share, loss = now[job.file]
                bars.update(rows[job.file], completed=share, loss=f"loss {loss:.3f}")
        for done in ended:
            row = rows.get(running[done].file)
            if row is not None:
                bars.update(row, visible=False)
            bars.advance(every)
            yield done


def _guarded(work: Work, running: Running, weights: Path) -> tuple[list[Measured], str]:
    job, deadline = running.job, running.deadline
    if deadline is not None and time.time() > deadline - SPARE:
        return [], "left out, no time"
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    begun = time.monotonic()
    try:
        measured, networks = work(job, running)
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
