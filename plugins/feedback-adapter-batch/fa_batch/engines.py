"""Who makes the shards: this process, several on this machine, or a Ray cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import torch

from fa_batch.shard import Done, Task, refine_shard
from fa_batch.source import Row
from feedback_adapter.errors import DataError, FeedbackAdapterError, PluginError

__all__ = ["ENGINES", "Work"]

Work = Iterable[tuple[int, list[Row]]]
"""The number of a shard, and its rows; read when it is their turn."""

Tick = Callable[[int], None]


class WorkerDiedError(DataError):
    """A worker ended before its shard was done."""


def local(task: Task, work: Work, workers: int | None, tick: Tick) -> Generator[Done]:
    """Make shards on this machine: in this process, or in several that share its cores."""
    if workers is None or workers == 1:
        for number, rows in work:
            yield refine_shard(task, number, rows, tick)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=torch.set_num_threads, initargs=(threads,)
    )
    waiting: set[concurrent.futures.Future[Done]] = set()
    work = iter(work)
    try:
        while True:
            for number, rows in itertools.islice(work, workers + 1 - len(waiting)):
                waiting.add(pool.submit(refine_shard, task, number, rows))
            if not waiting:
                return
            ready, waiting = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in ready:
                made = future.result()
                tick(made.rows)
                yield made
    except concurrent.futures.process.BrokenProcessPool as error:
        raise WorkerDiedError(_died("A worker process ended")) from error
    finally:
        pool.shutdown(cancel_futures=True)


def on_ray(task: Task, work: Work, workers: int | None, tick: Tick) -> Generator[Done]:
    """Make shards by Ray tasks: on the cluster that RAY_ADDRESS names, or on this machine.

    Ray makes a task again whose worker has died. A task has one core, and one GPU where the model
    runs on GPUs.
    """
    ray = _ray()
    with _connected(ray, workers):
        gpus = 1 if task.device.startswith("cuda") else 0
        unit = "GPU" if gpus else "CPU"
        most = workers or int(ray.cluster_resources().get(unit, 1))
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(refine_shard)
        shared, waiting = ray.put(task), list[Any]()
        work = iter(work)
        while True:
            for number, rows in itertools.islice(work, most - len(waiting)):
                waiting.append(remote.remote(shared, number, rows))
            if not waiting:
                return
            ready, waiting = ray.wait(waiting)
            for made in _results(ray, ready):
                tick(made.rows)
                yield made


ENGINES: dict[str, Callable[[Task, Work, int | None, Tick], Iterator[Done]]] = {
    "local": local,
    "ray": on_ray,
}
"""By name."""


def _results(ray: Any, ready: list[Any]) -> list[Done]:
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FeedbackAdapterError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise WorkerDiedError(_died(f"Ray: {str(error).splitlines()[0]}")) from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise PluginError(
            "--engine ray needs Ray, which isn't installed: pip install 'feedback-adapter[ray]'. "
            "--engine local needs nothing else."
        ) from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any, workers: int | None) -> Generator[None]:
    """Connected to the cluster that RAY_ADDRESS names, or to one of this machine's own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of each run
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not os.environ.get("RAY_ADDRESS"):
        quiet |= {
            "address": "local", "num_cpus": workers, "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }  # fmt: skip
    try:
        ray.init(**quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise PluginError(f"Ray can't be started or reached: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _died(what: str) -> str:
    return (
        f"{what} before its shard was done; it may have run out of memory. What is done stays: "
        "run the same command again, with fewer --workers or a smaller --batch."
    )
