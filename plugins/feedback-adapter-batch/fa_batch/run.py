"""Refine a data set into a folder of Parquet files."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fa_batch.engines import ENGINES
from fa_batch.manifest import open_folder, write_manifest
from fa_batch.request import Request, label_outputs, loaded
from fa_batch.shard import Done, Task, shard_path
from fa_batch.source import Row, Source, open_source
from feedback_adapter.errors import DataError, EvidenceError, OptionsError, did_you_mean
from feedback_adapter.names import find

__all__ = ["Job", "Summary", "describe_unknown", "prepare"]


MOST_WORKERS = 1000
"""More processes than any machine or usual cluster has room for."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What came of a run: its rows, how many of them have an error, and its shards."""

    rows: int
    errors: int
    shards: int


@dataclasses.dataclass(frozen=True)
class Job:
    """A data set that is ready to be refined. Make it with `prepare`.

    Args:
        source: The images, and what is known of them.
        task: What a worker does with them.
        labels: The labels of each output.
    """

    source: Source
    task: Task
    labels: Mapping[str, list[str]]

    def run(
        self,
        engine: str = "local",
        workers: int | None = None,
        tick: Callable[[int], None] | None = None,
    ) -> Summary:
        """Make the shards that are missing.

        Args:
            engine: `"local"`, or `"ray"`.
            workers: How many shards are made at a time; by default one on this machine, and as
                many as a Ray cluster has cores.
            tick: Is told how many more rows are done, each time that some are.

        Returns:
            What is in the folder now.

        Raises:
            DataError: The folder is that of another request or can't be written, or no image
                could be refined.
            OptionsError: No such engine, or no workers.
            PluginError: Ray isn't installed, or can't be reached.
        """
        if engine not in ENGINES:
            raise OptionsError(f"There is no engine {engine!r}. {did_you_mean(engine, ENGINES)}")
        if workers is not None and not 1 <= workers <= MOST_WORKERS:
            raise OptionsError(
                f"workers={workers!r} is out of range: it must be from 1 to {MOST_WORKERS:,}."
            )
        tick = tick or _nothing
        out, request = self.task.out, self.task.request
        there = open_folder(out, request, self.labels)
        tick(sum(made.rows for made in there.values()))
        missing = request.shards - len(there)
        if missing:
            workers = None if workers is None else min(workers, missing)
            for made in ENGINES[engine](self.task, self._missing(there), workers, tick):
                there[made.shard] = made
                write_manifest(out, request, self.labels, there)
        errors = sum(made.errors for made in there.values())
        if errors == len(self.source):
            first = pq.read_table(shard_path(out, 0), columns=["error"])["error"][0].as_py()
            raise DataError(f"No image could be refined. The first one: {first}")
        return Summary(len(self.source), errors, request.shards)

    def _missing(self, there: Mapping[int, Done]) -> Generator[tuple[int, list[Row]]]:
        size = self.task.request.shard_size
        missing = [n for n in range(self.task.request.shards) if n not in there]
        for number in missing:
            yield number, self.source.rows(number * size, (number + 1) * size)


def prepare(
    images: str | Path,
    out: str | Path,
    *,
    checkpoint: str,
    evidence: str | Path | None = None,
    image_column: str | None = None,
    ignore_unknown: bool = False,
    strategy: str | None = None,
    pivots: tuple[str, ...] | str | None = None,
    options: Mapping[str, Any] | None = None,
    shard_size: int = 1000,
    batch: int = 32,
    device: str = "cpu",
) -> Job:
    """Open a data set and a checkpoint, and check that one goes with the other.

    Args:
        images: A folder with images, or a table that names or holds them.
        out: Folder for the results.
        checkpoint: Name or folder of a checkpoint.
        evidence: A table of what is known, where `images` doesn't say it itself.
        image_column: The tables' column that names the images, or holds them.
        ignore_unknown: Leave out names that aren't the model's, instead of refusing them.
        strategy: As for `Adapter.refine`.
        pivots: As for `Adapter.refine`.
        options: The strategy's options, by name.
        shard_size: Rows of an output file, at least 1.
        batch: Images that go through the model at a time, at least 1.
        device: Where the model runs, such as `"cuda"`.

    Raises:
        FeedbackAdapterError: Something isn't there or can't be read, or what is asked for can't
            be; the message says what.
    """
    for name, value in (("shard_size", shard_size), ("batch", batch)):
        if value < 1:
            raise OptionsError(f"{name}={value!r} is out of range: it must be at least 1.")
    source = open_source(Path(images), None if evidence is None else Path(evidence), image_column)
    loaded.cache_clear()  # the folder may hold something else by now
    adapter, sha256 = loaded(checkpoint, device)
    labels = {name: list(spec.labels) for name, spec in label_outputs(adapter).items()}
    every = [label for some in labels.values() for label in some]
    ignored = _unknown(source, every)
    if ignored and not ignore_unknown:
        raise EvidenceError(
            f"{describe_unknown(ignored, every)} Rename them in {str(source.table.path)!r}, or "
            "leave them out with --ignore-unknown."
        )
    source = dataclasses.replace(source, ignored=frozenset(ignored))
    request = Request(
        checkpoint, sha256, source.fingerprint, len(source), shard_size,
        strategy, pivots, dict(options or {}), tuple(ignored),
    )  # fmt: skip
    request.check(adapter)
    return Job(source, Task(request, Path(out).absolute(), batch, device), labels)


def describe_unknown(names: Sequence[str], labels: Sequence[str]) -> str:
    """A sentence on names that aren't the model's, each with the labels near to it."""
    said: list[str] = []
    for name in names[:20]:
        near = [labels[i] for i in find(name, labels)] or difflib.get_close_matches(name, labels)
        said.append(f"{name!r} (near: {', '.join(near)})" if near else repr(name))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    some = "1 name isn't a label" if len(names) == 1 else f"{len(names)} names aren't labels"
    return f"{some} of the model: {', '.join(said)}{more}."


def _unknown(source: Source, labels: list[str]) -> list[str]:
    """The table's names that aren't the model's.

    Raises:
        EvidenceError: None of them is.
    """
    table = source.table
    found = [name for name in table.names if len(find(name, labels)) != 1]
    if len(found) == len(table.names) and not table.others:
        names = describe_unknown(found, labels) if found else "It has no other columns."
        raise EvidenceError(
            f"{str(table.path)!r} says nothing of any label of the model. {names} "
            f"{did_you_mean('', labels)}"
        )
    return found


def _nothing(rows: int) -> None:
    del rows
