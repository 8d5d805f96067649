"""Files of a data set, which anybody may have written: what is wrong in them is named.

A name in a file leads to a photo of the same folder and to nothing else, sizes are looked at
before memory is taken, and every entry is checked when it is read.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

from PIL import Image

from feedback_adapter.errors import DataError, InputError
from feedback_adapter.photos import read_photo

__all__ = [
    "Opener",
    "check_archive",
    "entries",
    "field",
    "folder_opener",
    "opener_of",
    "photo_name",
    "read_json",
    "read_lines",
    "unique",
    "zip_opener",
]

Opener = Callable[[str], Image.Image]
"""Opens a photo by its name, as RGB; raises DataError."""

_LARGEST = 2**27
"""Bytes of one photo's file (128 MiB)."""

_LONGEST = 255
"""Bytes of a file's name, by most systems."""

_SQUEEZED = 100
"""How many times smaller than its content an entry of an archive of arrays may be."""

_WORDS = {dict: "an object {...}", list: "a list [...]", str: "text", int: "a whole number"}


def read_lines(path: Path) -> list[str]:
    r"""The lines of a text file in UTF-8, which end with \n or \r\n, or with \r if no \n is there.

    Captions may hold other characters that Unicode counts as line breaks.

    Raises:
        DataError: It is missing, isn't a regular file, or isn't text.
    """
    text = _text(path)
    return [line.removesuffix("\r") for line in text.split("\n" if "\n" in text else "\r")]


def read_json(path: Path, expected: type) -> Any:
    """Read a JSON file whose outermost value is a dict or a list.

    Raises:
        DataError: It is missing, isn't JSON, says one thing twice, or is of another type.
    """
    try:
        value = json.loads(_text(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} can't be read as JSON: {error}") from error
    if not isinstance(value, expected):
        raise DataError(
            f"{str(path)!r} must hold a {expected.__name__}, but holds a {type(value).__name__}."
        )
    return value


def _text(path: Path) -> str:
    try:
        if not path.is_file():  # a pipe would never end
            raise OSError("there is no regular file of this name")
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} can't be read: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(k for k in keys if keys.count(k) > 1)!r} is there twice.")
    return found


def entries(
    content: dict[str, Any], section: str, file: Path, **types: type | tuple[type, ...]
) -> Iterator[tuple[Any, ...]]:
    """The values that each entry of a section of a JSON file has for some keys.

    Args:
        content: What the file holds.
        section: A key of it, whose value must be a list of objects.
        file: Where it was read from, for messages.
        **types: The keys, and of which type their values must be.

    Yields:
        A tuple for each entry, in the order of the keys.

    Raises:
        DataError: The section is missing or an entry is otherwise; names file, entry and reason.
    """
    for index, entry in enumerate(field(content, section, list, file, "it")):
        yield tuple(
            [field(entry, key, kind, file, f"{section}[{index}]") for key, kind in types.items()]
        )


def field(entry: Any, key: str, kind: type | tuple[type, ...], file: Path, where: str) -> Any:
    """The value for a key of a JSON object, checked.

    Args:
        entry: The object.
        key: Which value.
        kind: Of which type it must be.
        file: Where it was read from, for messages.
        where: What the entry is called in messages.

    Raises:
        DataError: The entry is no object, has no such key, or a value of another type.
    """
    value = cast("dict[str, Any]", entry).get(key) if isinstance(entry, dict) else None
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    if not isinstance(entry, dict):
        raise DataError(f"{str(file)!r}: {where} is {_short(entry)}, not an object with {key!r}.")
    if key not in entry:
        raise DataError(f"{str(file)!r}: {where} has no {key!r}.")
    kinds = " or ".join(_WORDS[k] for k in (kind if isinstance(kind, tuple) else (kind,)))
    raise DataError(f"{str(file)!r}: {key!r} of {where} is {_short(value)}: it must be {kinds}.")


def unique(names: list[Any], file: Path, what: str) -> None:
    """Refuse names of which one is there twice.

    Raises:
        DataError: Names the file and the name.
    """
    if len(set(names)) < len(names):
        seen: set[Any] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise DataError(f"{str(file)!r} has the {what} {twice!r} twice.")


def photo_name(name: str, file: Path) -> str:
    """A photo's name, which mustn't lead out of the folder of photos.

    Raises:
        DataError: It is an absolute path, has '..' in it, or can't be a file's name.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    long = any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST for part in path.parts)
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in name or long:
        raise DataError(
            f"{str(file)!r}: {_short(name)} isn't the name of a photo within the data's folder."
        )
    return name


def opener_of(read: Callable[[str], Path | bytes], where: Path) -> Opener:
    """An opener, of which every error is a DataError that names the photo.

    Args:
        read: The file, or what is in it, by the photo's name.
        where: Folder or archive, for messages.
    """

    def open_photo(name: str) -> Image.Image:
        try:
            found = read(name)
            return read_photo(io.BytesIO(found) if isinstance(found, bytes) else found, name)
        except InputError as error:
            raise DataError(f"{error} It is a photo of {str(where)!r}.") from error
        except Exception as error:  # on a broken archive, decoders raise nearly anything
            reason = error if str(error) else type(error).__name__
            raise DataError(
                f"Image {name!r} can't be read from {str(where)!r}: {reason}"
            ) from error

    return open_photo


def zip_opener(path: Path) -> Opener:
    """Open photos by name from inside a zip file; safe to call from several threads."""
    # One handle for each thread: a ZipFile's lock would make decoding threads queue.
    local = threading.local()

    def read(name: str) -> bytes:
        if not hasattr(local, "archive"):
            local.archive = zipfile.ZipFile(path)
        size = local.archive.getinfo(name).file_size
        if size > _LARGEST:
            raise DataError(f"it is {size:,} bytes large; at most {_LARGEST:,} are read.")
        return local.archive.read(name)

    return opener_of(read, path)


def folder_opener(folder: Path) -> Opener:
    """Open photos by name from a folder; links that lead out of it aren't followed."""

    def read(name: str) -> Path:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise DataError("it leads out of the folder.")
        return path

    return opener_of(read, folder)


def check_archive(path: Path) -> None:
    """Refuse a zip or npz file that a few bytes make large.

    Raises:
        DataError: It isn't such a file, or an entry is over a hundred times larger than packed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.file_size > max(_LARGEST // 8, _SQUEEZED * entry.compress_size):
                    raise DataError(
                        f"{str(path)!r}: {entry.compress_size:,} bytes of {entry.filename!r} would "
                        f"become {entry.file_size:,}, which no photos do."
                    )
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(path)!r} can't be read: {error}") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
