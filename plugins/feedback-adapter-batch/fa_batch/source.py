"""The images of a data set in a fixed order, each with what is known of it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

from fa_batch.matching import matched
from fa_batch.tables import SUFFIXES, Table, read_folder, read_table
from feedback_adapter.cli.told import Told, told
from feedback_adapter.errors import DataError, EvidenceError, InputError
from feedback_adapter.photos import Photo, read_photo

__all__ = ["Row", "Source", "open_source"]

METADATA = tuple(f"metadata{suffix}" for suffix in (".jsonl", ".csv", ".parquet"))
"""What an `imagefolder` says of its images, beside them."""

_CONTENT = 2**30
"""Files up to so many bytes are known again by their content, larger ones by size and time."""


@dataclasses.dataclass(frozen=True)
class Row:
    """An image, and what is known of it.

    Args:
        id: What it is called in the output.
        photo: Its file, its bytes, or nothing.
        told: What is known.
        error: Why it can't be refined, if that is known already.
    """

    id: str
    photo: str | bytes | None
    told: Told = dataclasses.field(default_factory=Told)
    error: str | None = None

    def open(self) -> Photo:
        """The photo, as a transform takes it.

        Raises:
            InputError: There is none, or its bytes can't be read.
        """
        if not self.photo:
            raise InputError("The line holds no image.")
        if isinstance(self.photo, bytes):
            return read_photo(io.BytesIO(self.photo), repr(self.id))
        return self.photo


@dataclasses.dataclass(frozen=True)
class Source:
    """All images, in an order that is the same each time.

    Args:
        folder: Where paths begin.
        ids: (images,) strings: the images' paths from the folder on, null where they have none.
        pictures: (images,) bytes or paths, in its only column, where `ids` don't lead to images.
        table: What is known.
        lines: (rows,) int64, the line of the table for each image, -1 for none; and after the
            images those lines that are about no image.
        problems: Why the line of an image can't be used, by the image's number.
        fingerprint: The sha256 of the images' names and of what is known.
        ignored: Names of the table that aren't the model's.
    """

    folder: Path
    ids: pa.Array
    pictures: datasets.Dataset | None
    table: Table
    lines: np.ndarray
    problems: dict[int, str]
    fingerprint: str
    ignored: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self, start: int, stop: int) -> list[Row]:
        """Some of the rows, from `start` on and without `stop`."""
        numbers = range(start, min(stop, len(self)))
        lines = [int(line) for line in self.lines[start:stop]]
        cells = iter(self.table.cells([line for line in lines if line >= 0]))
        said = [next(cells) if line >= 0 else {} for line in lines]
        return [
            self._image(number, some) if number < len(self.ids) else self._nowhere(line, some)
            for number, line, some in zip(numbers, lines, said, strict=True)
        ]

    def _image(self, number: int, cells: dict[Any, Any]) -> Row:
        name = self.ids[number].as_py()
        photo: Any = name
        if self.pictures is not None:
            (photo,) = self.pictures[number].values()
            if isinstance(photo, dict):
                photo = photo.get("bytes") or photo.get("path")
        if isinstance(photo, str) and photo:
            photo = str(self.folder / photo)
        row = Row(name or f"line {number + 1}", photo)
        problem = self.problems.get(number, cells.get(None))
        if problem is not None:
            return dataclasses.replace(row, error=problem)
        column = self.table.column
        try:
            known = told({n: c for n, c in cells.items() if n != column}, self.ignored)
        except EvidenceError as error:
            return dataclasses.replace(row, error=str(error))
        return dataclasses.replace(row, told=known)

    def _nowhere(self, line: int, cells: dict[Any, Any]) -> Row:
        """A line that is about no image."""
        name = self.table.files[line].as_py()
        missing = f"There is no image {name!r} in {str(self.folder)!r}."
        missing = missing if name else f"It names no image in its column {self.table.column!r}."
        return Row(name or f"line {line + 1}", None, error=str(cells.get(None, missing)))


def open_source(
    images: Path, evidence: Path | None = None, image_column: str | None = None
) -> Source:
    """Open a data set.

    Args:
        images: A folder with images, or a table that names or holds them; see `read_table`.
        evidence: A table of what is known of them; by default what `images` says itself: the
            table's own columns, or the `metadata` file of the folder.
        image_column: The column of the tables that names the images, or holds them.

    Raises:
        DataError: Something isn't there or can't be read, there is no image, or nothing is known.
    """
    if not images.exists():
        raise DataError(f"There is no folder or file {str(images)!r}.")
    if images.is_dir() and _kind(images) != ".parquet":
        if _kind(images) is None:
            raise DataError(f"There is no image in {str(images)!r}, nor in a folder within it.")
        folder, pictures = images.resolve(), None
        ids = read_folder(images)
        table = read_table(evidence or _metadata(images), image_column)
        lines, problems = matched(ids, table, images)
    else:
        own = table = read_table(images, image_column)
        folder = images.resolve() if images.is_dir() else images.resolve().parent
        ids, pictures = own.files, own.pictures
        lines, problems = np.arange(len(ids)), dict[int, str]()
        if evidence is not None:
            table = read_table(evidence, image_column)
            lines, problems = matched(ids, table, images)
    if not len(ids):
        raise DataError(f"{str(images)!r} has no image: no line follows its heading.")
    marks = [_of_names(ids), *_of_files(table.path), *_of_files(images)]
    fingerprint = hashlib.sha256("\n".join(marks).encode()).hexdigest()
    return Source(folder, ids, pictures, table, lines, problems, fingerprint)


def _metadata(folder: Path) -> Path:
    for name in METADATA:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"Nothing says what is known of the images in {str(folder)!r}: name a table "
        f"({', '.join(SUFFIXES)}) with --evidence, or put a metadata.jsonl beside them."
    )


def _kind(folder: Path) -> str | None:
    """`".parquet"` of a table in parts, `"image"` where there is an image, or nothing."""
    known, found = set(Image.registered_extensions()), None
    for path in folder.rglob("*"):
        suffix = path.suffix.lower()
        if suffix in known:
            return "image"
        if suffix == ".parquet":
            found = suffix
    return found


def _of_names(values: pa.Array) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(f"{value.as_py()}\n".encode())
    return digest.hexdigest()


def _of_files(path: Path) -> list[str]:
    """A file's content, or its size and when it was changed, where it is large or in parts."""
    parts = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    if parts == [path] and path.stat().st_size <= _CONTENT:
        with path.open("rb") as file:
            return [hashlib.file_digest(file, "sha256").hexdigest()]
    stats = [part.stat() for part in parts]
    return [f"{status.st_size} {status.st_mtime_ns}" for status in stats]
