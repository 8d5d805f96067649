"""`--evidence-file`: what is known of each of many photos, as a table in a CSV file.

A column such as `file` names the photo. What the others may hold: see `told.told`.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from feedback_adapter.cli.told import IMAGE_COLUMNS, RESERVED, Told, image_column, told
from feedback_adapter.errors import EvidenceError, did_you_mean


class Row(NamedTuple):
    """What a line of the file says of a photo, whose path goes on from the file's folder."""

    photo: Path
    told: Told


def read_rows(path: Path) -> list[Row]:
    """Read the file.

    Raises:
        EvidenceError: It can't be read, or an entry isn't what it may be; the message says which.
    """
    where = f"--evidence-file {str(path)!r}"
    if path.exists() and not path.is_file():
        raise EvidenceError(f"{where} isn't a file: name a CSV file.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [
                (reader.line_num, [cell.strip() for cell in line])
                for line in reader
                if any(cell.strip() for cell in line)
            ]
    except (OSError, UnicodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise EvidenceError(f"{where} can't be read as a CSV file in UTF-8: {why}.") from error
    columns, file = _columns(lines[0][1] if lines else [], where)
    rows: list[Row] = []
    for number, cells in lines[1:]:
        here = f"{where}, line {number}"
        while len(cells) > len(columns) and not cells[-1]:
            cells.pop()
        if len(cells) > len(columns):
            raise EvidenceError(f"{here} has {len(cells)} cells for {len(columns)} columns.")
        given = dict(zip(columns, cells, strict=False))
        photo = given.pop(file)
        if not photo or "\0" in photo:
            raise EvidenceError(f"{here} names no photo in the column {file!r}.")
        try:
            rows.append(Row(_place(path.parent, photo), told(given)))
        except EvidenceError as error:
            raise EvidenceError(f"{here}: {error}") from error
    if not rows:
        raise EvidenceError(f"{where} has no line after that of the column names.")
    return rows


def _columns(names: list[str], where: str) -> tuple[list[str], str]:
    """The first line, without what a spreadsheet appends, and which column names the photo."""
    while names and not names[-1]:
        names.pop()
    ours = (*RESERVED, *IMAGE_COLUMNS)
    columns = [name.lower() if name.lower() in ours else name for name in names]
    begins = f"it begins with {names!r:.200}"
    file = image_column(columns)
    if file is None:
        other = next((mark for mark in ";\t" if len(names) == 1 and mark in names[0]), None)
        help_ = (
            f"Columns are separated by commas, and not by {other!r}."
            if other
            else "The column 'file' names the photo."
        )
        raise EvidenceError(f"{where} has no column 'file': {begins}. {help_}")
    twice = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if twice or "" in columns:
        what = f"two columns {twice[0]!r}" if twice else "a column without a name"
        raise EvidenceError(f"{where} has {what}: {begins}. Each column needs a name of its own.")
    return columns, file


def _place(folder: Path, photo: str) -> Path:
    """Where a photo is, which may be written as on another system."""
    for form in (photo, photo.replace("\\", "/")):
        for name in (form, _composed(form), unicodedata.normalize("NFD", form)):
            if (folder / name).exists():
                return folder / name
    return folder / photo


def rows_of(photos: Sequence[Path], rows: Sequence[Row]) -> list[Row | None]:
    """The row of each photo, found by its path, else by its name; `None` where it has none.

    Raises:
        EvidenceError: A photo has several rows, or none of the photos has one.
    """
    by_path: dict[Path, list[Row]] = {}
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_path.setdefault(row.photo.resolve(), []).append(row)
        by_name.setdefault(_composed(row.photo.name), []).append(row)
    found: list[Row | None] = []
    for photo in photos:
        own = by_path.get(photo.resolve()) or by_name.get(_composed(photo.name)) or []
        if len(own) > 1:
            raise EvidenceError(
                f"--evidence-file has {len(own)} lines for {str(photo)!r}: leave one, or give "
                "the photos' paths from its folder on."
            )
        found.append(own[0] if own else None)
    if not any(found):
        raise EvidenceError(
            f"--evidence-file has no line for {str(photos[0])!r}, nor for any other of the photos. "
            f"{did_you_mean(photos[0].name, by_name)}"
        )
    return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
