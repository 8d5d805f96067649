"""The manifest of an output folder: what was asked for, and what is done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from fa_batch.request import Request
from fa_batch.shard import Done, done
from feedback_adapter.errors import DataError

__all__ = ["MANIFEST", "OtherRequestError", "open_folder", "write_manifest"]

MANIFEST = "_manifest.json"
"""Its file in the output folder. Readers of Parquet folders skip names that begin with `_`."""

FORMAT = 1
_CONTENTS = {
    "input_sha256": "the images' names or what is known of them",
    "checkpoint_sha256": "the content of the checkpoint",
}
ABANDONED = 3600
"""Seconds after which nobody goes on writing a shard's temporary file."""


class OtherRequestError(DataError):
    """The output folder belongs to another request."""


def open_folder(out: Path, request: Request, labels: Mapping[str, Any]) -> dict[int, Done]:
    """Make the output folder, or find what is done there.

    Args:
        out: The folder.
        request: What is asked for now.
        labels: The labels of each output, for the manifest.

    Returns:
        The shards that are there, by number.

    Raises:
        OtherRequestError: The folder is that of another request.
        DataError: It has other files, or can't be made or written.
    """
    file = out / MANIFEST
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {str(out)!r} is a file: name a folder.")
    if file.is_file():
        _same(out, request)
    elif out.is_dir() and any(out.iterdir()):
        raise DataError(
            f"--out {str(out)!r} holds other files and no {MANIFEST}: name a new or empty folder."
        )
    there = {n: it for n in range(request.shards) if (it := done(out, n, request)) is not None}
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for part in out.glob(".shard-*"):
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink(missing_ok=True)
    write_manifest(out, request, labels, there)
    return there


def write_manifest(
    out: Path, request: Request, labels: Mapping[str, Any], there: Mapping[int, Done]
) -> None:
    """Replace the manifest as a whole.

    Raises:
        DataError: It can't be written.
    """
    said = {
        "format": FORMAT,
        "checkpoint": request.checkpoint,
        "request": request.to_dict(),
        "labels": labels,
        "shards": request.shards,
        "done": [dataclasses.asdict(there[number]) for number in sorted(there)],
    }
    part = out / f".{MANIFEST}.{os.getpid()}"
    with _writing(out):
        part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        part.replace(out / MANIFEST)


@contextlib.contextmanager
def _writing(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"--out {str(out)!r} can't be written: {error.strerror}. Name a folder that you may "
            "write to, on a disk with room. What is done stays."
        ) from error


def _same(out: Path, request: Request) -> None:
    file, now = out / MANIFEST, request.to_dict()
    try:
        then = json.loads(file.read_text("utf-8"))["request"]
        differs = [key for key in now if then.get(key) != now[key]]
    except OSError as error:
        raise DataError(f"{str(file)!r} can't be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{str(file)!r} isn't a manifest of this program: name another --out folder."
        ) from error
    if differs:
        said = "; ".join(
            f"{_CONTENTS[key]} changed ({key})"
            if key in _CONTENTS
            else f"{key} was {then.get(key)!r:.40} and is {now[key]!r:.40}"
            for key in differs
        )
        raise OtherRequestError(
            f"--out {str(out)!r} belongs to another request: {said}. Ask for the same again to go "
            "on with it, or name another folder."
        )
