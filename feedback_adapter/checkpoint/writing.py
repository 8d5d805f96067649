"""Write the files of a checkpoint: the whole of it, or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from feedback_adapter.checkpoint.format import CARD, CONFIG, FORMAT, WEIGHTS, File, sha256_of
from feedback_adapter.checkpoint.schema import check as check_config
from feedback_adapter.checkpoint.schema import only_data, shortly
from feedback_adapter.errors import CheckpointError
from feedback_adapter.prior import LabelPrior

__all__ = ["free", "write_folder"]

_STAGING = ".saving-"
_HOUR = 3600.0
"""Seconds after which a folder of that name is of a save that was killed."""
_OURS = re.compile(r"(model(-[0-9a-f]{12})?|prior-.+)\.safetensors")
_HASHED = re.compile(r"(model|prior-.+)-[0-9a-f]{12}\.safetensors")
"""Files that only a save makes: their names tell what is in them."""


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    weights: Mapping[str, Any],
    priors: Mapping[str, LabelPrior] | None = None,
    text: str = "",
    check: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """Write a whole checkpoint, or nothing.

    Everything is written beside the folder first and then moved in, config.json last, so that an
    error or a kill at any instant leaves a checkpoint that was there as it was.

    Args:
        folder: New or empty, or one that holds a checkpoint, which is replaced. Folders in it
            (such as the state of a training run) stay as they are.
        config: What config.json shall hold, without `"format"`, `"weights"` and `"priors"`,
            which are added here.
        tensors: The weights, contiguous, sharing no memory.
        weights: What config.json shall note of them beside the file: `"dtype"`, one of
            `schema.DTYPES`, and what `tensors.state_of` adds.
        priors: Label statistics, by output.
        text: The page for readers; empty writes none.
        check: Called with the folder that is to be moved in; an error stops it.

    Returns:
        What config.json holds.

    Raises:
        CheckpointError: The folder holds other files, or something can't be written.
    """
    folder = free(folder)
    config = only_data(dict(config), CONFIG)
    with _staging(folder) as staging:
        taken = _files_of(folder, staging)
        file = dataclasses.asdict(_stored(staging, WEIGHTS, tensors, taken))
        config = {"format": FORMAT, **config, "weights": {**file, **weights}}
        for index, (output, prior) in enumerate((priors or {}).items()):
            plain = output.replace("_", "").replace("-", "").isalnum() and output.isascii()
            name = f"prior-{output if plain and len(output) < 60 else f'{index}+'}.safetensors"
            note = _stored(staging, name, prior.tensors(), taken)
            config.setdefault("priors", {})[output] = dataclasses.asdict(note)
        check_config(config, folder / CONFIG)
        if text:
            (staging / CARD).write_text(text, "utf-8")
        (staging / CONFIG).write_text(
            json.dumps(config, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
        if check is not None:
            check(staging)
        _move_in(staging, folder)
    return config


def free(folder: str | Path) -> Path:
    """The real path of a folder that a checkpoint may be written to.

    Raises:
        CheckpointError: It is no folder, or holds something else than a checkpoint.
    """
    try:
        folder = Path(os.path.realpath(folder))
        is_other = folder.exists() and not folder.is_dir()
        files = {p.name for p in folder.iterdir() if p.is_file()} if folder.is_dir() else set[str]()
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{shortly(folder)} can't be written: {error}") from error
    if is_other:
        raise CheckpointError(f"{folder} is a file: give a new or empty folder.")
    old = _old(folder)
    if CONFIG in files and not (isinstance(old, dict) and {"format", "weights"} <= old.keys()):
        raise CheckpointError(
            f"{folder} holds a {CONFIG} of something else: give a new or empty folder."
        )
    if CONFIG not in files and not all(_HASHED.fullmatch(name) for name in files):
        raise CheckpointError(f"{folder} holds other files: give a new or empty folder.")
    return folder


def _old(folder: Path) -> Any:
    """The config that is there; `None` if there's none that can be read."""
    try:
        return json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def _staging(folder: Path) -> Generator[Path]:
    """A folder beside the one to write, or in it, gone afterwards whatever happens."""
    try:
        parent = folder if folder.is_dir() and not _replaceable(folder) else folder.parent
        start = f"{_STAGING}{folder.name[:100]}-"
        place = parent / f"{start}{uuid.uuid4().hex[:12]}"
        place.mkdir(parents=True)
        try:
            for left in parent.iterdir():  # by a save that was killed
                if left.name.startswith(start) and time.time() - left.stat().st_mtime > _HOUR:
                    shutil.rmtree(left, ignore_errors=True)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written: {error}.") from error


def _replaceable(folder: Path) -> bool:
    """Whether an empty folder can be exchanged for another as a whole."""
    mounted = folder.is_mount() or not os.access(folder.parent, os.W_OK)
    return not mounted and not any(folder.iterdir())


def _stored(
    staging: Path, name: str, tensors: Mapping[str, Tensor], taken: Mapping[str, str] | None
) -> File:
    """Write tensors under a name that no other file of the old checkpoint has.

    Where `taken` is `None` the name tells what is in the file: then a save that is killed on its
    way leaves only files that the next one knows as its own.
    """
    path = staging / name
    try:
        safetensors.torch.save_file(dict(tensors), path)
    except (LookupError, RuntimeError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"safetensors can't hold these weights: {error}") from error
    path.chmod(0o644)  # safetensors makes it private; a package is for everybody
    sha256 = sha256_of(path)
    if (
        taken is None or taken.get(name, sha256) != sha256
    ):  # the old config.json needs the old file till the end
        path = path.rename(staging / f"{path.stem}-{sha256[:12]}{path.suffix}")
    return File(path.name, sha256)


def _files_of(folder: Path, staging: Path) -> dict[str, str] | None:
    """The safetensors files of a checkpoint, with their sha256; `None` in a folder without one."""
    if staging.parent == folder and not (folder / CONFIG).is_file():
        return None
    return {path.name: sha256_of(path) for path in folder.glob("*.safetensors") if path.is_file()}


def _move_in(staging: Path, folder: Path) -> None:
    for path in staging.iterdir():
        _flush(path)
    if staging.parent != folder:
        staging.replace(folder)  # also over an empty folder
        return
    old = _old(folder)
    names = sorted((path.name for path in staging.iterdir()), key=lambda name: name == CONFIG)
    for name in names:
        (staging / name).replace(folder / name)
    gone = {CARD} | {note.get("file") for note in _notes(old)}
    for path in folder.iterdir():
        if path.name not in names and (path.name in gone or _OURS.fullmatch(path.name)):
            with contextlib.suppress(OSError):  # the new checkpoint is there
                path.unlink()


def _notes(config: Any) -> list[dict[str, Any]]:
    """What a config, which may be of any form, notes of its files."""
    if not isinstance(config, dict):
        return []
    priors = config.get("priors")
    notes = [config.get("weights"), *(priors.values() if isinstance(priors, dict) else ())]
    return [note for note in notes if isinstance(note, dict)]


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
