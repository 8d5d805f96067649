"""`--evidence-file`: what is known of each of many photos, as a table in a CSV file.

The column `file` names the photo. A column of the name of a label holds 1 (it is there), 0 (it
isn't), a number between them, or nothing where it isn't known. The columns `know` and `know_not`
hold labels with semicolons between them, `know_coarse` a coarse class, and `text` a text.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feedback_adapter.errors import EvidenceError, did_you_mean

if TYPE_CHECKING:
    from feedback_adapter.evidence.base import Evidence

OURS = FILE, KNOW, KNOW_NOT, COARSE, TEXT = "file", "know", "know_not", "know_coarse", "text"


@dataclasses.dataclass(frozen=True)
class Row:
    """What a line of the file says.

    Args:
        photo: The photo's path: what the file says, from the file's folder on.
        labels: `{label: value}`, values in [0, 1].
        coarse: Coarse classes of which the class is one; empty if none is known.
        text: The text; empty if there is none.
    """

    photo: Path
    labels: dict[str, float]
    coarse: tuple[str, ...] = ()
    text: str = ""


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
    columns = _columns(lines[0][1] if lines else [], where)
    rows: list[Row] = []
    for number, cells in lines[1:]:
        here = f"{where}, line {number}"
        while len(cells) > len(columns) and not cells[-1]:
            cells.pop()
        if len(cells) > len(columns):
            raise EvidenceError(f"{here} has {len(cells)} cells for {len(columns)} columns.")
        given = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
        rows.append(_row(given, path.parent, here))
    if not rows:
        raise EvidenceError(f"{where} has no line after that of the column names.")
    return rows


def _columns(names: list[str], where: str) -> list[str]:
    """The first line, without what a spreadsheet appends; the columns of ours in lower case."""
    while names and not names[-1]:
        names.pop()
    columns = [name.lower() if name.lower() in OURS else name for name in names]
    begins = f"it begins with {names!r:.200}"
    if FILE not in columns:
        other = next((mark for mark in ";\t" if len(names) == 1 and mark in names[0]), None)
        help_ = (
            f"Columns are separated by commas, and not by {other!r}."
            if other
            else f"The column {FILE!r} names the photo."
        )
        raise EvidenceError(f"{where} has no column {FILE!r}: {begins}. {help_}")
    twice = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if twice or "" in columns:
        what = f"two columns {twice[0]!r}" if twice else "a column without a name"
        raise EvidenceError(f"{where} has {what}: {begins}. Each column needs a name of its own.")
    return columns


def _row(given: dict[str, str], folder: Path, here: str) -> Row:
    file = given.pop(FILE, "")
    if not file or "\0" in file:
        raise EvidenceError(f"{here} names no photo in the column {FILE!r}.")
    coarse, text = given.pop(COARSE, ""), given.pop(TEXT, "")
    labels: dict[str, float] = {}
    for column, value in ((KNOW, 1.0), (KNOW_NOT, 0.0)):
        for label in given.pop(column, "").split(";"):
            if label.strip() and labels.setdefault(label.strip(), value) != value:
                raise EvidenceError(
                    f"{here} says that {label.strip()!r} is there and that it isn't."
                )
    for label, cell in given.items():
        try:
            value = float(cell)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise EvidenceError(
                f"{here}, column {label!r} is {cell!r:.80}: it must be 1 (there), 0 (not there), a "
                "number between them, or empty where it isn't known. Words go into the columns "
                f"{', '.join(map(repr, OURS[1:]))}."
            )
        if labels.setdefault(label, value) != value:
            raise EvidenceError(f"{here} says two things of {label!r}.")
    classes = tuple(name.strip() for name in coarse.split("|") if name.strip())
    return Row(folder / file, labels, classes, text)


def rows_of(photos: Sequence[Path], rows: Sequence[Row]) -> list[Row | None]:
    """The row of each photo, found by its path, else by its name; `None` where it has none.

    Raises:
        EvidenceError: A photo has several rows, or none of the photos has one.
    """
    by_path: dict[Path, list[Row]] = {}
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_path.setdefault(row.photo.resolve(), []).append(row)
        by_name.setdefault(row.photo.name, []).append(row)
    found: list[Row | None] = []
    for photo in photos:
        own = by_path.get(photo.resolve()) or by_name.get(photo.name) or []
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


def evidence_of(rows: Sequence[Row | None]) -> list[Evidence]:
    """What is known of each photo, as one piece of evidence per kind."""
    from feedback_adapter.evidence.coarse import Coarse
    from feedback_adapter.evidence.labels import Labels
    from feedback_adapter.evidence.text import Text

    parts: list[Evidence] = []
    if any(row and row.labels for row in rows):
        parts.append(Labels([row.labels if row else {} for row in rows]))
    if any(row and row.coarse for row in rows):
        parts.append(Coarse([row.coarse or None if row else None for row in rows]))
    if any(row and row.text for row in rows):
        parts.append(Text([row.text or None if row else None for row in rows]))
    return parts
