"""One shard: some rows are refined and written to one Parquet file, or none of them is."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

import feedback_adapter as fa
from fa_batch.request import Request, label_outputs, loaded
from fa_batch.results import Results
from fa_batch.source import Row
from feedback_adapter.batches import read_ahead
from feedback_adapter.cli.told import evidence_of
from feedback_adapter.errors import DataError, EvidenceError, FeedbackAdapterError, InputError

__all__ = ["Done", "Task", "done", "refine_shard", "shard_path"]

KEY = b"feedback_adapter"
"""Where a shard's Parquet metadata says what it is."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker needs to make a shard besides its rows.

    Args:
        request: What is asked for.
        out: The folder of the shards.
        batch: Images that go through the model at a time.
        device: Where the model runs.
    """

    request: Request
    out: Path
    batch: int = 32
    device: str = "cpu"


@dataclasses.dataclass(frozen=True)
class Done:
    """A shard that is there: its number, its rows, and how many of them have an error."""

    shard: int
    rows: int
    errors: int


def shard_path(out: Path, shard: int) -> Path:
    """Where a shard is."""
    return out / f"shard-{shard:06d}.parquet"


def refine_shard(
    task: Task, shard: int, rows: Sequence[Row], tick: Callable[[int], None] | None = None
) -> Done:
    """Make one shard. Made again it is the same, and it is there as a whole or not at all.

    Args:
        task: What is asked for.
        shard: Its number.
        rows: Its rows.
        tick: Is told how many rows are done, each time that some are.

    Raises:
        DataError: It can't be written.
        FeedbackAdapterError: What is asked for can't be done with any image.
    """
    request = task.request
    adapter, sha256 = loaded(request.checkpoint, task.device)
    if sha256 != request.checkpoint_sha256:
        raise DataError(
            f"The checkpoint {request.checkpoint!r} isn't the same on all machines: install the "
            "same versions on all of them, or put it into a folder that all of them see."
        )
    results = Results([row.id for row in rows], label_outputs(adapter))
    for places, images, evidence in read_ahead(_batches(adapter, task, rows)):
        if isinstance(images, str):
            results.errors[places[0]] = images
        else:
            _refine(adapter, request, results, places, images, evidence)
        if tick is not None:
            tick(len(places))
    made = Done(shard, len(rows), results.failed)
    table = results.table()
    said = {"request": request.sha256, **dataclasses.asdict(made)}
    table = table.replace_schema_metadata({**table.schema.metadata, KEY: json.dumps(said).encode()})
    place = shard_path(task.out, shard)
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
    except OSError as error:
        raise DataError(
            f"{str(place)!r} can't be written: {error.strerror or error}. What is done stays: "
            "make room, or see who may write there, and run the same command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return made


def done(out: Path, shard: int, request: Request) -> Done | None:
    """The shard, if it is there, whole and of this request."""
    try:
        with pq.ParquetFile(shard_path(out, shard)) as file:
            said = json.loads((file.metadata.metadata or {}).get(KEY, b"{}"))
            rows = file.metadata.num_rows
    except (OSError, ValueError, pa.ArrowException):
        return None
    if said.get("request") != request.sha256 or said.get("rows") != rows:
        return None
    return Done(shard, rows, said["errors"])


def _refine(
    adapter: fa.Adapter,
    request: Request,
    results: Results,
    places: list[int],
    images: Tensor,
    evidence: fa.Evidence,
) -> None:
    """Refine a batch; if it fails as a whole, one image at a time, so that only a bad one fails."""
    try:
        results.add(places, request.refine(adapter, images, evidence))
    except (EvidenceError, InputError) as error:
        if len(places) == 1:
            results.errors[places[0]] = str(error)
            return
        for index, place in enumerate(places):
            own = evidence.take(torch.tensor([index]))
            _refine(adapter, request, results, [place], images[index : index + 1], own)


def _batches(
    adapter: fa.Adapter, task: Task, rows: Sequence[Row]
) -> Generator[tuple[list[int], Tensor | str, fa.Evidence]]:
    """The photos that can be read, in batches of one shape, and in place of others why not."""
    waiting: dict[torch.Size, list[tuple[int, Tensor]]] = collections.defaultdict(list)

    def batch(some: Iterable[tuple[int, Tensor]]) -> tuple[list[int], Tensor, fa.Evidence]:
        places, images = zip(*some, strict=True)
        known = evidence_of([rows[place].told for place in places])
        return list(places), torch.stack(images).to(task.device), known

    transform = task.request.transform(adapter)
    for place, row in enumerate(rows):
        try:
            if row.error is not None:
                raise InputError(row.error)
            known = evidence_of([row.told])
            known.bind(adapter.outputs, 1)
            (image,) = transform.open(row.open())
        except FeedbackAdapterError as error:
            yield [place], str(error), fa.Labels({})
            continue
        group = waiting[image.shape]
        group.append((place, image))
        if len(group) == task.batch:
            yield batch(waiting.pop(image.shape))
    for group in waiting.values():
        yield batch(group)
