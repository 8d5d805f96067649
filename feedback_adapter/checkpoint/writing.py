"""Write the files of a checkpoint: the whole of it, or nothing."""

from __future__ import annotations

import contextlib
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

from feedback_adapter.checkpoint.card import page_of
from feedback_adapter.checkpoint.format import (
    CARD,
    CONFIG,
    FORMAT,
    OLD_CARD,
    OLD_CONFIG,
    STATISTICS,
    WEIGHTS,
    hashed,
    is_ours,
    sha256_of,
)
from feedback_adapter.checkpoint.schema import check_config, only_data, shortly
from feedback_adapter.checkpoint.timm_folder import TIMM_CONFIG, write_timms
from feedback_adapter.errors import CheckpointError
from feedback_adapter.prior import LabelPrior

_STAGING = ".saving-"
_HOUR = 3600.0
"""Seconds after which a folder of that name is of a save that was killed."""
_OURS = re.compile(r"(model|feedback_adapter|prior-.+)(-[0-9a-f]{12})?\.safetensors")
_HASHED = re.compile(r"(model|feedback_adapter|prior-.+)-[0-9a-f]{12}\.safetensors")
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

    Everything is written beside the folder first and then moved in, so that an error or a kill
    at any instant leaves a checkpoint that was there as it was, or the new one.

    Args:
        folder: New or empty, or one that holds a checkpoint, which is replaced. Folders in it
            (such as the state of a training run) stay as they are.
        config: What the config shall hold, without `"format"`, `"weights"` and `"statistics"`,
            which are added here.
        tensors: The weights, contiguous, sharing no memory.
        weights: What the config shall note of them beside their sha256: `"dtype"`, one of
            `schema.DTYPES`, and what `tensors.state_of` adds.
        priors: Label statistics, by output.
        text: The page for readers, below its header; empty takes the name and the summary.
        check: Called with the folder that is to be moved in; an error stops it.

    Returns:
        What the config holds.

    Raises:
        CheckpointError: The folder holds other files, or something can't be written.
    """
    folder = free(folder)
    config = only_data(dict(config), CONFIG)
    with _staging(folder) as staging:
        sha256 = _store(staging / WEIGHTS, tensors)
        config = {"format": FORMAT, **config, "weights": {"sha256": sha256, **weights}}
        statistics = {
            f"{output}.{name}": tensor
            for output, prior in (priors or {}).items()
            for name, tensor in prior.tensors().items()
        }
        if statistics:
            config["statistics"] = {"sha256": _store(staging / STATISTICS, statistics)}
        check_config(config, folder / CONFIG)
        (staging / CARD).write_text(page_of(config, text), "utf-8")
        told = json.dumps(config, indent=1, ensure_ascii=False)
        (staging / CONFIG).write_text(told + "\n", "utf-8")
        write_timms(staging, config, tensors)
        if check is not None:
            check(staging)
        _move_in(staging, folder, config)
    return config


def free(folder: str | Path) -> Path:
    """The real path of a folder that is new or empty, or holds a checkpoint; others are refused."""
    try:
        folder = Path(os.path.realpath(folder))
        is_other = folder.exists() and not folder.is_dir()
        files = {p.name for p in folder.iterdir() if p.is_file()} if folder.is_dir() else set[str]()
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{shortly(folder)} can't be written: {error}") from error
    if is_other:
        raise CheckpointError(f"{folder} is a file: give a new or empty folder.")
    config = next((name for name in (CONFIG, OLD_CONFIG) if name in files), None)
    if config is not None and not is_ours(_old(folder / config)):
        raise CheckpointError(
            f"{folder} holds a {config} of something else: give a new or empty folder."
        )
    if config is None and not all(_HASHED.fullmatch(name) for name in files):
        raise CheckpointError(f"{folder} holds other files: give a new or empty folder.")
    return folder


def _old(config: Path) -> Any:
    """The config that is there; `None` if there's none that can be read."""
    try:
        return json.loads(config.read_text("utf-8"))
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


def _store(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a new file, and return its sha256."""
    try:
        safetensors.torch.save_file(dict(tensors), path)
    except (LookupError, RuntimeError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"safetensors can't hold these weights: {error}") from error
    path.chmod(0o644)  # safetensors makes it private; a package is for everybody
    return sha256_of(path)


def _move_in(staging: Path, folder: Path, config: Mapping[str, Any]) -> None:
    for path in staging.iterdir():
        _flush(path)
    if staging.parent != folder:
        staging.replace(folder)  # also over an empty folder
        return
    _exchange(staging, folder, config)


def _exchange(staging: Path, folder: Path, config: Mapping[str, Any]) -> None:
    """Put the files of a checkpoint in the place of another's.

    The old config needs the old tensors till the new one is there, which needs the new ones: so
    these have other names at first. timm, which knows nothing of that, finds no config of its
    own meanwhile, rather than one beside another model's weights.
    """
    old = _old(folder / OLD_CONFIG)
    hashes = {WEIGHTS: config["weights"], STATISTICS: config.get("statistics")}
    names = {name: hashed(name, note["sha256"]) for name, note in hashes.items() if note}
    for name, meanwhile in names.items():
        (staging / name).replace(folder / meanwhile)
    if not is_ours(old):
        (folder / TIMM_CONFIG).unlink(missing_ok=True)
    (staging / CONFIG).replace(folder / CONFIG)  # from here on, it is the new one
    for name, meanwhile in names.items():
        (folder / meanwhile).replace(folder / name)
    kept = {CONFIG, *names, *(path.name for path in staging.iterdir())}
    for path in staging.iterdir():
        path.replace(folder / path.name)
    gone = {OLD_CONFIG, OLD_CARD} | {note.get("file") for note in _notes(old)}
    for path in folder.iterdir():
        if path.name not in kept and (path.name in gone or _OURS.fullmatch(path.name)):
            with contextlib.suppress(OSError):  # the new checkpoint is there
                path.unlink()


def _notes(config: Any) -> list[dict[str, Any]]:
    """What a config of format 1, which may be damaged, notes of its files."""
    if not is_ours(config):
        return []
    priors = config.get("priors")
    notes = [config.get("weights"), *(priors.values() if isinstance(priors, dict) else ())]
    return [note for note in notes if isinstance(note, dict)]


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
