"""The files of a checkpoint: what they are called and how they are read; `writing` writes them.

A folder holds `feedback_adapter.json` (see `schema`), the weights in `model.safetensors`, label
statistics of its outputs, if there are any, in `feedback_adapter.safetensors`, and `README.md`, a
page for readers. A model of timm's has timm's own `config.json` beside them (see `timm_folder`).
Until a save is complete, the tensors are in files that also have the first 12 digits of their
sha256 in their names. No config names a file; all are checked by sha256, and nothing is ever
unpickled.

Format 1 is still read: there the config is `config.json`, and says which safetensors files beside
it hold the weights and the statistics of each output; the page is `card.md`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from feedback_adapter import plugins
from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.card import FACTS, Card, text_of
from feedback_adapter.checkpoint.hub import HUB, LOCAL, fetch
from feedback_adapter.checkpoint.schema import check_config, shortly
from feedback_adapter.errors import CheckpointError, did_you_mean
from feedback_adapter.prior import LabelPrior

FORMAT = 2
CONFIG, CARD = "feedback_adapter.json", "README.md"
WEIGHTS, STATISTICS = "model.safetensors", "feedback_adapter.safetensors"
OLD_CONFIG, OLD_CARD = "config.json", "card.md"
_LONGEST = 64_000_000
"""Bytes of a config, and characters of a page, that are read."""


def hashed(name: str, sha256: str) -> str:
    """What a file is called until a save is complete."""
    path = Path(name)
    return f"{path.stem}-{sha256[:12]}{path.suffix}"


def config_of(folder: Path) -> Path:
    """The config of a checkpoint's folder, of whichever format; it must have one."""
    file, old = folder / CONFIG, folder / OLD_CONFIG
    if file.is_file():
        return file
    if not old.is_file():
        raise CheckpointError(
            f"{str(folder)!r:.400} has no {CONFIG}: it isn't a checkpoint. "
            "`feedback-adapter zoo list` lists those that are installed, and adapter.save(folder) "
            "makes one."
        )
    if "pretrained_cfg" in (timms := read_json(old)) or isinstance(timms.get("architecture"), str):
        raise CheckpointError(
            f"{folder} has no {CONFIG}, but a {OLD_CONFIG} of timm's: "
            f"feedback_adapter.wrap('{LOCAL}{folder}') takes that."
        )
    return old


def is_ours(config: Any) -> bool:
    """Whether this is what a checkpoint's config holds, of any format, damaged or not."""
    return isinstance(config, dict) and {"format", "weights"} <= config.keys()


def find(name: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        name: The name of a checkpoint of the zoo or of another plugin, a folder, or
            `"hf-hub:owner/name[@revision]"`, of which only the config and the page are fetched.

    Raises:
        CheckpointError: There is no such checkpoint or folder.
    """
    if not isinstance(name, str | os.PathLike):
        raise CheckpointError(f"name={shortly(name)}: give the name of a checkpoint, or a folder.")
    if str(name).startswith(HUB):
        return fetch(str(name), CONFIG, optional=(CARD,))
    folder = Path(str(name).removeprefix(LOCAL))
    if not str(name).strip():
        raise CheckpointError("There is no name: give that of a checkpoint, or a folder.")
    try:
        if folder.is_dir():
            config_of(folder)
            return folder
    except OSError as error:  # too long, or no permission
        raise CheckpointError(f"{str(name)!r:.400} can't be read: {error.strerror}.") from error
    known = [spec.name for spec in plugins.plugins().all("checkpoints")]
    if str(name) not in known:
        hint = did_you_mean(str(name), known)
        hint += "" if known else " Install feedback-adapter-zoo for some."
        if (folder.parent / CONFIG).is_file() and folder.exists():
            hint = f"It is a file of one: name its folder, {str(folder.parent)!r:.400}."
        raise CheckpointError(f"There is no checkpoint or folder {str(name)!r:.400}. {hint}")
    return plugins.checkpoint(str(name)).path


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint's config holds, with every key checked.

    Raises:
        CheckpointError: It isn't JSON, is of another format, or a key is missing, unknown or
            holds something else than it may.
    """
    file = config_of(folder)
    config = read_json(file)
    expected = FORMAT if file.name == CONFIG else 1
    if config.get("format") != expected:
        raise CheckpointError(
            f"{file} has format {shortly(config.get('format'))}; this version reads {expected}."
        )
    check_config(config, file)
    return config


def read_json(file: Path) -> dict[str, Any]:
    """The object that a file of JSON holds; whatever else it holds is refused."""
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
    page = folder / (CARD if config["format"] == FORMAT else OLD_CARD)
    try:
        with page.open(encoding="utf-8") if page.is_file() else io.StringIO() as file:
            text = file.read(_LONGEST)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{page} can't be read: {error}") from error
    how = config["architecture"]
    return Card(
        **{key: config[key] for key in FACTS if key in config},
        architecture=Architecture(**how) if how else None,
        dtype=config["weights"]["dtype"],
        text=text_of(text, config) if page.name == CARD else text,
    )


Shapes = dict[str, tuple[int, ...]]


def read_weights(
    folder: Path, config: Mapping[str, Any]
) -> tuple[Shapes, Callable[[], dict[str, Tensor]]]:
    """The shapes of a checkpoint's tensors, from the head of the file, and what reads them."""
    path = _checked(folder, config["weights"], WEIGHTS)
    return shapes_of(path), lambda: safetensors.torch.load_file(path)


def shapes_of(path: Path) -> Shapes:
    """The shapes of the tensors of a safetensors file, by name; a damaged file is refused."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def read_priors(folder: Path, config: Mapping[str, Any]) -> dict[str, LabelPrior]:
    """The label statistics of a checkpoint, by output; those of other labels are refused."""
    parts: dict[str, tuple[Path, dict[str, Tensor]]] = {}
    if "statistics" in config:
        path = _checked(folder, config["statistics"], STATISTICS)
        for name, tensor in _load(path).items():
            output, _, part = name.rpartition(".")
            parts.setdefault(output, (path, {}))[1][part] = tensor
    for output, note in config.get("priors", {}).items():  # of format 1
        path = _checked(folder, note, note["file"])
        parts[output] = path, _load(path)
    found: dict[str, LabelPrior] = {}
    for output, (path, tensors) in parts.items():
        prior = found[output] = LabelPrior.of(tensors, path)
        n = len(config["outputs"].get(output, {}).get("labels", ()))
        shapes = ((prior.mean, (2, n)), (prior.covariance, (3, n, n)), (prior.couplings, (n, n)))
        for tensor, shape in shapes:
            if not n or tensor.shape != shape or not bool(tensor.isfinite().all()):
                raise CheckpointError(
                    f"{path} holds no statistics of the {n} labels of {shortly(output)}: "
                    f"{tuple(tensor.shape)} with finite numbers should be {shape}."
                )
    return found


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def _checked(folder: Path, note: Mapping[str, Any], name: str) -> Path:
    """The path of a file, which must have the bytes that the config's note of it means."""
    name, sha256 = note.get("file", name), note["sha256"]
    path = folder / hashed(name, sha256)
    path = path if path.is_file() else folder / name
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {name}: the checkpoint is incomplete.")
    found = sha256_of(path)
    if found != sha256:
        raise CheckpointError(
            f"{path} has sha256 {found[:12]}…, but its config says {sha256[:12]}…: "
            "it is damaged or was exchanged. Get it again."
        )
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
