"""The files of a checkpoint: the only place that names, reads and writes them.

A folder holds `config.json` (see `schema`), weights as safetensors, label statistics of its
outputs if there are any, and `card.md`, a page for readers. Files are found by the names that
config.json gives them and checked by sha256; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from torch import Tensor

from feedback_adapter import plugins
from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.schema import check as check_config
from feedback_adapter.checkpoint.schema import only_data, shortly
from feedback_adapter.errors import CheckpointError, did_you_mean
from feedback_adapter.prior import LabelPrior

__all__ = ["CARD", "CONFIG", "FORMAT", "WEIGHTS", "Card", "File", "find", "read_config"]

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
_STAGING = ".saving-"
_HOUR = 3600.0
_OURS = re.compile(r"(model(-[0-9a-f]{12})?|prior-.+)\.safetensors")
_HASHED = re.compile(r"(model|prior-.+)-[0-9a-f]{12}\.safetensors")
_LONGEST = 64_000_000
"""Bytes of a config, and characters of a page, that are read."""
_FACTS = ("name", "summary", "data", "training", "metrics", "license")


@dataclasses.dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself, beside its weights and what its outputs mean.

    Args:
        name: The name of the checkpoint; empty takes that of the folder.
        summary: One line for lists.
        data: What it was trained on: `"source"`, `"images"` per split, `"citation"`.
        training: How it was trained: the recipe, its settings, versions, machine, seconds.
        metrics: What it scores, by name.
        license: What the licence of its data allows.
        architecture: How its model is built; `None` where only its owner can build it, or where
            the model says so itself, as timm's do.
        dtype: How its weights are stored: `"as saved"`, each in the model's own dtype, or
            `"float16"` as long as they are float16 numbers.
        text: The page for readers (`card.md`, in Markdown); empty if there is none.
    """

    name: str = ""
    summary: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any], repr=False)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    license: str = ""
    architecture: Architecture | None = None
    dtype: Literal["as saved", "float16"] = "as saved"
    text: str = dataclasses.field(default="", repr=False)

    def facts(self) -> dict[str, Any]:
        """What config.json holds of it under keys of the same names: all that isn't empty."""
        return {key: getattr(self, key) for key in _FACTS if getattr(self, key)}


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a checkpoint, as config.json notes it.

    Args:
        file: Its plain name in the folder.
        sha256: Of its bytes, in hexadecimal.
    """

    file: str
    sha256: str

    def inside(self, folder: Path) -> Path:
        """The path of the file, whose bytes are those that config.json means.

        Raises:
            CheckpointError: It is missing, or its sha256 is another.
        """
        path = folder / self.file
        if not path.is_file():
            raise CheckpointError(f"{folder} has no {self.file}: the checkpoint is incomplete.")
        found = _sha256(path)
        if found != self.sha256:
            raise CheckpointError(
                f"{path} has sha256 {found[:12]}…, but its {CONFIG} says {self.sha256[:12]}…: "
                "it is damaged or was exchanged. Get it again."
            )
        return path


def find(name: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        name: The name of a checkpoint of the zoo or of another plugin, or a folder.

    Raises:
        CheckpointError: There is no such checkpoint or folder.
    """
    if not isinstance(name, str | os.PathLike):
        raise CheckpointError(f"name={shortly(name)}: give the name of a checkpoint, or a folder.")
    folder = Path(name)
    try:
        if (folder / CONFIG).is_file():
            return folder
        is_folder = folder.is_dir()
    except OSError as error:  # too long, or no permission
        raise CheckpointError(f"{shortly(str(name))} can't be read: {error.strerror}.") from error
    if is_folder:
        raise CheckpointError(f"{folder} has no {CONFIG}: it isn't a checkpoint.")
    known = [spec.name for spec in plugins.plugins().all("checkpoints")]
    if str(name) not in known:
        hint = did_you_mean(str(name), known)
        hint += "" if known else " Install feedback-adapter-zoo for some."
        raise CheckpointError(f"There is no checkpoint or folder {shortly(str(name))}. {hint}")
    return plugins.checkpoint(str(name)).path


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint's config.json holds, with every key checked.

    Raises:
        CheckpointError: It isn't JSON, is of another format, or a key is missing, unknown or
            holds something else than it may.
    """
    file = folder / CONFIG
    try:
        if file.stat().st_size > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST:,} bytes")
        config = json.loads(file.read_text("utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds a {type(config).__name__}, not an object.")
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} has format {shortly(config.get('format'))}; this version reads {FORMAT}."
        )
    check_config(config, file)
    return config


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def read_card(folder: Path, config: Mapping[str, Any]) -> Card:
    """What a checkpoint says of itself."""
    page = folder / CARD
    try:
        with page.open(encoding="utf-8") if page.is_file() else io.StringIO() as file:
            text = file.read(_LONGEST)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{page} can't be read: {error}") from error
    how = config["architecture"]
    return Card(
        **{key: config[key] for key in _FACTS if key in config},
        architecture=Architecture(**how) if how else None,
        dtype=config["weights"]["dtype"],
        text=text,
    )


Shapes = dict[str, tuple[int, ...]]


def read_weights(
    folder: Path, config: Mapping[str, Any]
) -> tuple[Shapes, Callable[[], dict[str, Tensor]]]:
    """The shapes of a checkpoint's tensors, from the head of the file, and what reads them.

    Raises:
        CheckpointError: The file is missing, damaged, or no safetensors file.
    """
    note = config["weights"]
    path = File(note["file"], note["sha256"]).inside(folder)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    return shapes, lambda: safetensors.torch.load_file(path)


def read_priors(folder: Path, config: Mapping[str, Any]) -> dict[str, LabelPrior]:
    """The label statistics of a checkpoint, by output.

    Raises:
        CheckpointError: A file is missing or damaged, or is of other labels.
    """
    priors: dict[str, LabelPrior] = {}
    for output, note in config.get("priors", {}).items():
        path = File(**note).inside(folder)
        prior, n = LabelPrior.load(path), len(config["outputs"][output]["labels"])
        parts = ((prior.mean, (2, n)), (prior.covariance, (3, n, n)), (prior.couplings, (n, n)))
        for tensor, shape in parts:
            if tensor.shape != shape or not bool(tensor.isfinite().all()):
                raise CheckpointError(
                    f"{path} holds no statistics of the {n} labels of {output!r}: "
                    f"{tuple(tensor.shape)} with finite numbers should be {shape}."
                )
        priors[output] = prior
    return priors


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
    sha256 = _sha256(path)
    if (
        taken is None or taken.get(name, sha256) != sha256
    ):  # the old config.json needs the old file till the end
        path = path.rename(staging / f"{path.stem}-{sha256[:12]}{path.suffix}")
    return File(path.name, sha256)


def _files_of(folder: Path, staging: Path) -> dict[str, str] | None:
    """The safetensors files of a checkpoint, with their sha256; `None` in a folder without one."""
    if staging.parent == folder and not (folder / CONFIG).is_file():
        return None
    return {path.name: _sha256(path) for path in folder.glob("*.safetensors") if path.is_file()}


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
