"""Which line of a table is about which image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fa_batch.tables import Table
from feedback_adapter.errors import DataError

__all__ = ["matched"]

_KEYS: tuple[Callable[[PurePosixPath], str], ...] = (
    str,
    lambda path: path.name,
    lambda path: path.stem,
)
"""What a line may call an image: its path from the folder on, its name, its name without ending."""


def matched(ids: pa.Array, table: Table, images: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Find the line of each image.

    Args:
        ids: (images,) strings, the images' paths from the folder on.
        table: The lines.
        images: Where the images are; a path that begins with it is one from there on.

    Returns:
        (rows,) int64: for each image its line, -1 for none, and after the images the lines that
        are about no image; and why the line of an image can't be used, by the image's number.

    Raises:
        DataError: No line is about any image.
    """
    files, composed = (pc.utf8_normalize(some, "NFC") for some in (table.files, ids))
    if not pc.any(pc.match_substring(composed, "\\")).as_py():  # else it is a part of a name
        files = pc.replace_substring(files, "\\", "/")
    if pc.any(pc.starts_with(files, "../")).as_py():  # from the table's folder on
        here = table.path.parent.resolve()
        names = files.to_pylist()
        whole = [os.path.normpath(here / n) if n and n.startswith("../") else n for n in names]
        files = pa.array(whole, pa.string())
    files = pc.replace_substring_regex(files, "^\\./", "")
    for root in (f"{images.resolve().as_posix()}/", f"{images.as_posix()}/"):
        within = pc.utf8_slice_codeunits(files, len(root))
        files = pc.if_else(pc.starts_with(files, root), within, files)
    line = np.full(len(ids), -1, np.int64)
    paths = [PurePosixPath(name or "") for name in composed.to_pylist()]
    for key in _KEYS:
        found = pc.index_in(pa.array(map(key, paths), pa.string()), files, skip_nulls=True)
        line = np.where(line < 0, np.asarray(pc.fill_null(found, -1)), line)
    if not (line >= 0).any():
        raise DataError(
            f"No line of {str(table.path)!r} is about an image of {str(images)!r}: its column "
            f"{table.column!r} begins with {table.files[:1].to_pylist()}, and the images with "
            f"{ids[:1].to_pylist()}. Give paths from that folder on."
        )
    names = files.to_pylist()
    twice = {item["values"] for item in pc.value_counts(files).to_pylist() if item["counts"] > 1}
    images_of = np.bincount(line[line >= 0], minlength=len(names))
    problems: dict[int, str] = {}
    for number in np.flatnonzero(line >= 0).tolist():
        name = names[line[number]]
        if name in twice:
            problems[number] = f"The evidence has several lines for {name!r}: leave one."
        elif images_of[line[number]] > 1:
            problems[number] = (
                f"The evidence's line for {name!r} fits several images: give their paths from "
                f"{str(images)!r} on."
            )
    known = {names[i] for i in np.flatnonzero(images_of).tolist()}
    rest = [i for i, name in enumerate(names) if images_of[i] == 0 and name not in known]
    return np.concatenate([line, np.array(rest, np.int64)]), problems
