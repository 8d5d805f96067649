"""The files of a checkpoint: what they are called and how they are read; `writing` writes them.

A folder holds `config.json` (see `schema`), weights as safetensors, label statistics of its
outputs if there are any, and `card.md`, a page for readers. Files are found by the names that
config.json gives them and checked by sha256; nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from torch import Tensor

from feedback_adapter import plugins
from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.schema import check as check_config
from feedback_adapter.checkpoint.schema import shortly
from feedback_adapter.errors import CheckpointError, did_you_mean
from feedback_adapter.prior import LabelPrior

__all__ = [
    "CARD",
    "CONFIG",
    "FORMAT",
    "WEIGHTS",
    "Card",
    "File",
    "find",
    "read_config",
    "read_json",
    "sha256_of",
    "shapes_of",
]

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
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
        found = sha256_of(path)
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
    config = read_json(file)
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} has format {shortly(config.get('format'))}; this version reads {FORMAT}."
        )
    check_config(config, file)
    return config


def read_json(file: Path) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Raises:
        CheckpointError: It holds something else, or can't be read.
    """
    try:
        if file.stat().st_size > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST:,} bytes")
        config = json.loads(file.read_text("utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds a {type(config).__name__}, not an object.")
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
    return shapes_of(path), lambda: safetensors.torch.load_file(path)


def shapes_of(path: Path) -> Shapes:
    """The shapes of the tensors of a safetensors file, by name.

    Raises:
        CheckpointError: It is damaged, or no safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


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


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
