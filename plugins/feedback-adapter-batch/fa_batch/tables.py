"""Tables and folders, read by the library `datasets`: memory-mapped, so of any size."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from feedback_adapter.cli.told import ABSENT, COARSE, PRESENT, RESERVED, TEXT, image_column, words
from feedback_adapter.errors import DataError, EvidenceError, did_you_mean

__all__ = ["SUFFIXES", "Table", "read_folder", "read_table"]

SUFFIXES = (".csv", ".jsonl", ".json", ".parquet")
COCO = {
    "categories": {"id": (int, str), "name": (str,)},
    "images": {"id": (int, str), "file_name": (str,)},
    "annotations": {"image_id": (int, str), "category_id": (int, str)},
}
"""What the entries of a file in COCO's format must have."""

TOO_MANY = "more cells than there are columns"
LINE = "\n"
"""The column that holds a whole line of JSON, as text: no table has one of that name."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Lines that say something of images.

    Args:
        path: Its file or folder.
        rows: The lines, as they are stored, without images.
        column: The column that names the images, or holds them.
        files: (lines,) strings: the images' paths, null where there is none.
        names: The names that the table uses for labels.
        others: Whether it says anything else, by a coarse class or a text.
        pictures: The images' bytes as the only column, where the table holds them.
    """

    path: Path
    rows: datasets.Dataset
    column: str
    files: pa.Array
    names: tuple[str, ...]
    others: bool = False
    pictures: datasets.Dataset | None = None

    def cells(self, lines: list[int]) -> list[dict[str, Any]]:
        """The cells of some lines, by column. A line that can't be read has the key `None`."""
        return [_cells(row) for row in self.rows.select(lines)] if lines else []


def read_folder(folder: Path) -> pa.Array:
    """The images of a folder and of the folders within it: (images,) paths from the folder on.

    Raises:
        DataError: It can't be read.
    """
    loaded = _load(
        folder, "imagefolder", data_dir=str(folder), data_files={"train": "**"},
        drop_labels=True, drop_metadata=True,
    )  # fmt: skip
    paths = _files(loaded.cast_column("image", datasets.Image(decode=False)), "image")
    root = folder.resolve()
    return pa.array(Path(path).relative_to(root).as_posix() for path in paths.to_pylist())


def read_table(path: Path, column: str | None = None) -> Table:
    """A table of images: CSV, JSON Lines, Parquet (a file, or a folder of them), or COCO's JSON.

    Args:
        path: Its file or folder.
        column: The column that names the images or holds them; see `image_column`.

    Raises:
        DataError: It isn't there, isn't such a table, or has no such column.
    """
    if not path.exists():
        raise DataError(f"There is no file {str(path)!r}.")
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{str(path)!r} isn't a table that can be read: its ending must be one of "
            f"{', '.join(SUFFIXES)}."
        )
    if suffix == ".json":
        return _coco(path)
    if suffix == ".jsonl":
        return _json_lines(path, column)
    if suffix == ".csv":
        rows = _csv(path)
    else:
        files = {"train": "**/*.parquet" if path.is_dir() else path.name}
        folder = path if path.is_dir() else path.parent
        rows = _load(path, "parquet", data_dir=str(folder), data_files=files)
    column = _image_column(path, rows.column_names, column)
    if isinstance(rows.features[column], datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    files, pictures = _files(rows, column), None
    if _holds_images(rows.data.schema.field(column).type):
        pictures = rows.select_columns([column])
        rows = rows.remove_columns([column])
    names = [name for name in rows.column_names if name not in (column, *RESERVED)]
    for listed in (name for name in (*PRESENT, *ABSENT) if name in rows.column_names):
        for cells in rows.select_columns([listed]).iter(1000):
            names += _words(cells[listed], listed)
    others = not {COARSE, TEXT}.isdisjoint(rows.column_names)
    return Table(path, rows, column, files, tuple(dict.fromkeys(names)), others, pictures)


def _csv(path: Path) -> datasets.Dataset:
    """Every cell as text, so that a bad cell spoils its own line only."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            columns = next(csv.reader(file), [])
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{str(path)!r} can't be read as a CSV file in UTF-8: {error}.") from error
    named = len(columns)
    while named and not columns[named - 1].strip():  # spreadsheets append columns without a name
        named -= 1
    columns[named:] = [f"{LINE}{number}" for number in range(named, len(columns))]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if not named or "" in columns or twice:
        raise DataError(
            f"{str(path)!r} must begin with a line of different column names; it begins with "
            f"{columns!r:.200}."
        )

    def mark(cells: list[str]) -> list[str]:
        return [*cells[: len(columns) - 1], TOO_MANY]

    rows = _load(
        path, "csv", data_files={"train": str(path)}, keep_default_na=False, names=columns,
        header=0, encoding="utf-8-sig", engine="python", on_bad_lines=mark,
        features=datasets.Features({name: datasets.Value("string") for name in columns}),
    )  # fmt: skip
    for name in columns[named:]:
        if not {"", None}.issuperset(rows.unique(name)):
            raise DataError(f"{str(path)!r} has cells in a column without a name: name it.")
    return rows.remove_columns(columns[named:])


def _json_lines(path: Path, column: str | None) -> Table:
    """Lines as text, so that a bad line spoils itself only; the names are found in one pass."""
    rows = _load(path, "text", data_files={"train": str(path)}).rename_column("text", LINE)
    keys: dict[str, None] = {}
    listed: dict[str, None] = {}
    for row in rows:
        cells = _cells(row)
        keys |= dict.fromkeys(key for key in cells if key is not None)
        for name in (*PRESENT, *ABSENT):
            listed |= dict.fromkeys(_words([cells.get(name)], name))
    if not keys:
        why = _cells(rows[0]).get(None, "The line says nothing.") if len(rows) else "It is empty."
        raise DataError(f"{str(path)!r} has no line that is a JSON object. The first one: {why}")
    column = _image_column(path, list(keys), column)
    files = pa.array([_text(_cells(row).get(column)) for row in rows], pa.string())
    names = [key for key in keys if key not in (column, *RESERVED)]
    others = not {COARSE, TEXT}.isdisjoint(keys)
    return Table(path, rows, column, files, tuple(dict.fromkeys([*names, *listed])), others)


def _coco(path: Path) -> Table:
    """COCO's JSON: an annotation says that its category is there; LVIS also says what isn't."""
    try:
        said = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{str(path)!r} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} can't be read as JSON: {error}.") from error
    names = {entry["id"]: entry["name"] for entry in _entries(said, "categories", path)}
    images = list(_entries(said, "images", path))
    there: dict[Any, set[str]] = {image["id"]: set() for image in images}
    for number, entry in enumerate(_entries(said, "annotations", path)):
        image, category = entry["image_id"], entry["category_id"]
        if image not in there or category not in names:
            what = f"category_id {category!r}" if image in there else f"image_id {image!r}"
            raise DataError(f"{str(path)!r}: nothing has the {what} of annotations[{number}].")
        there[image].add(names[category])
    absent = [image.get("neg_category_ids") or [] for image in images]
    for some in absent:
        if type(some) is not list or any(type(i) not in (int, str) or i not in names for i in some):
            raise DataError(f"{str(path)!r}: {some!r:.80} isn't a list of category ids.")
    columns = {
        "file_name": [image["file_name"] for image in images],
        "know": [sorted(there[image["id"]]) for image in images],
        "know_not": [sorted(names[number] for number in some) for some in absent],
    }
    used = sorted({name for key in ("know", "know_not") for some in columns[key] for name in some})
    rows = datasets.Dataset.from_dict(columns)
    return Table(path, rows, "file_name", _files(rows, "file_name"), tuple(used))


def _entries(said: Any, section: str, path: Path) -> Generator[dict[str, Any]]:
    """The entries of a section of a COCO file, each with what it must have."""
    found = said.get(section) if isinstance(said, dict) else None
    if not isinstance(found, list) or not (found or section == "annotations"):
        raise DataError(
            f"{str(path)!r} isn't in COCO's format, which has lists 'images', 'annotations' and "
            f"'categories': there is no such {section!r}. Other tables: {', '.join(SUFFIXES)}."
        )
    for number, entry in enumerate(found):
        for key, kinds in COCO[section].items():
            if not isinstance(entry, dict) or type(entry.get(key)) not in kinds:
                raise DataError(
                    f"{str(path)!r}: {section}[{number}] is {entry!r:.80}, and must be an object "
                    f"whose {key!r} is {' or '.join(kind.__name__ for kind in kinds)}."
                )
        yield entry


def _cells(row: dict[str, Any]) -> dict[Any, Any]:
    """The cells of a stored line."""
    if list(row) != [LINE]:
        over = [name for name, cell in row.items() if cell == TOO_MANY]
        return {None: f"The line has {TOO_MANY}."} if over else row
    try:
        cells = json.loads(row[LINE])
    except ValueError as error:
        return {None: f"The line isn't JSON: {error}."}
    if not isinstance(cells, dict):
        return {None: f"The line is {row[LINE]!r:.80}, which isn't a JSON object."}
    return cells


def _image_column(path: Path, columns: list[str], column: str | None) -> str:
    if column is not None:
        if column in columns:
            return column
        raise DataError(f"{str(path)!r} has no column {column!r}. {did_you_mean(column, columns)}")
    usual = image_column(columns)
    if usual is not None:
        return usual
    other = next((mark for mark in ";\t" if len(columns) == 1 and mark in columns[0]), None)
    how = f"separate its columns by commas, and not by {other!r}"
    raise DataError(
        f"{str(path)!r} has no column that names the images: "
        f"{how if other else 'say which one does with --image-column'}. Its columns: "
        f"{', '.join(map(repr, columns[:20]))}."
    )


def _files(rows: datasets.Dataset, column: str) -> pa.Array:
    """What names the images: the column itself, or the paths beside the bytes, or nothing."""
    kind = rows.data.schema.field(column).type
    if _holds_images(kind):
        if not pa.types.is_struct(kind) or "path" not in [field.name for field in kind]:
            return pa.nulls(len(rows), pa.string())
        rows = rows.select_columns([column]).flatten()
        column = f"{column}.path"
    values = rows.select_columns([column]).with_format("arrow")[:][column]
    return pa.array(values.to_pylist()).cast(pa.string())


def _holds_images(kind: pa.DataType) -> bool:
    return any(
        test(kind) for test in (pa.types.is_struct, pa.types.is_binary, pa.types.is_large_binary)
    )


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _words(cells: Iterable[Any], column: str) -> list[str]:
    found: list[str] = []
    for cell in cells:
        with contextlib.suppress(EvidenceError):  # the line says so when it is its turn
            found += words(cell, column)
    return found


def _load(path: Path, kind: str, **arguments: Any) -> datasets.Dataset:
    with _quiet():
        try:
            return datasets.load_dataset(kind, split="train", **arguments)
        except Exception as error:  # pandas', pyarrow's and its own, by many names
            if "corresponds to no data" in str(error):
                raise DataError(f"{str(path)!r} has no line that is about an image.") from error
            cause = error.__cause__ or error
            raise DataError(f"{str(path)!r} can't be read: {cause}.") from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the bars and messages of `datasets`: what went wrong is said by our errors."""
    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
