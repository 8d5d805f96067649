"""Folders in timm's own format: `config.json` and `model.safetensors`, here or on a hub."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from feedback_adapter.checkpoint.architecture import Architecture, harmless, timm_name
from feedback_adapter.checkpoint.format import WEIGHTS, read_json, shapes_of
from feedback_adapter.checkpoint.hub import HUB, LOCAL, fetch
from feedback_adapter.checkpoint.outline import apart, facts_of, outline_of
from feedback_adapter.checkpoint.schema import shortly
from feedback_adapter.errors import CheckpointError, FeedbackAdapterError
from feedback_adapter.timm_notes import transform_of_timm

TIMM_CONFIG = "config.json"
_PICKLED = ("*.bin", "*.pth", "*.pt", "*.pth.tar", "*.ckpt", "*.pkl")
_KEPT = (
    "input_size fixed_input_size interpolation crop_pct crop_mode mean std pool_size first_conv "
    "classifier"
).split()
_WIDEST = 8_192


def timm_model(name: str) -> nn.Module:
    """A model from a folder in timm's format, built and filled by timm, in evaluation mode.

    timm by itself would also open pickled weights, and do what a config asks for in other ways;
    so everything is checked first, and a model is built only from what is left: the name of a
    model of timm, arguments that only build a network, and one safetensors file beside them.

    Args:
        name: `"hf-hub:owner/name"`, with `@revision` or without, or `"local-dir:PATH"`.

    Raises:
        CheckpointError: It can't be reached, a file is missing, damaged or pickled, or the config
            holds what it may not.
    """
    import timm

    folder = _folder(name)
    try:
        _check(read_json(folder / TIMM_CONFIG))
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {TIMM_CONFIG} can't be used. {error}") from error
    if name.startswith(HUB):
        fetch(f"{name.partition('@')[0]}@{folder.name}", WEIGHTS)
    elif not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}.{_pickled(folder)}")
    shapes = shapes_of(folder / WEIGHTS)
    size = sum(math.prod(shape) for shape in shapes.values())
    place = f"{LOCAL}{folder}"
    try:
        outline_of(lambda: timm.create_model(place), size, len(shapes))
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(place, pretrained=True).eval()
        transform_of_timm(model)  # what the config says of photos can be used
    except FeedbackAdapterError as error:
        raise CheckpointError(f"{name}: {TIMM_CONFIG} can't be used. {error}") from error
    except Exception as error:  # timm's builders and loaders may fail in any way
        raise CheckpointError(
            f"{name}: timm can't build its model: {type(error).__name__}: {str(error)[:500]}"
        ) from error
    return model


def write_timms(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write timm's own config beside weights, if timm then loads the same model from them."""
    how = config["architecture"]
    if not how or how["library"] != "timm":
        return
    size = sum(tensor.numel() for tensor in tensors.values()), len(tensors)
    file = folder / TIMM_CONFIG
    try:
        ours = outline_of(Architecture(**how).build, *size)
        file.write_text(json.dumps(_timms(config, ours), indent=1) + "\n", "utf-8")
        theirs = timm_model(f"{LOCAL}{folder}")
        state = theirs.state_dict()
        alike = state.keys() == tensors.keys() and not apart(facts_of(ours), facts_of(theirs))
        same = alike and all(torch.equal(state[n].to(t.dtype), t.cpu()) for n, t in tensors.items())
    except CheckpointError:
        same = False
    if not same:
        file.unlink(missing_ok=True)


def _timms(config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """What timm's config says of a model, with what a checkpoint says of its photos and labels."""
    kwargs, transform = dict(config["architecture"]["kwargs"]), config.get("transform")
    own = cast("dict[str, Any]", model.pretrained_cfg)
    note = {key: own[key] for key in _KEPT if key in own}
    note["num_classes"] = count = cast("int", model.num_classes)
    if transform is not None:
        if not note.get("fixed_input_size"):
            note["input_size"] = [kwargs.get("in_chans", 3), *transform["size"]]
        note |= {key: transform[key] for key in ("interpolation", "mean", "std")}
        note |= {"crop_pct": 1.0, "crop_mode": "squash"}  # the whole photo, as Transform takes it
    labels = [output["labels"] for output in config["outputs"].values()]
    named = len(labels) == 1 and len(labels[0]) == count
    return {
        "architecture": config["architecture"]["model"],
        "num_classes": count,
        **({"label_names": labels[0]} if named else {}),
        "model_args": kwargs,
        "pretrained_cfg": note,
    }


def _folder(name: str) -> Path:
    if name.startswith(HUB):
        return fetch(name, TIMM_CONFIG)
    folder = Path(name.removeprefix(LOCAL))
    if not folder.is_dir():
        raise CheckpointError(f"{shortly(name)}: there is no such folder.")
    if not (folder / TIMM_CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {TIMM_CONFIG}: timm has saved no model there.")
    return folder


def _pickled(folder: Path) -> str:
    found = sorted(path.name for kind in _PICKLED for path in folder.glob(kind))
    if not found:
        return ""
    return (
        f" {found[0]} is pickled: opening it could run anything, so it never is. Save the weights "
        "as safetensors, as timm.models.save_for_hf does."
    )


def _check(config: dict[str, Any]) -> None:
    """Refuse a config of timm's that isn't plain data, or asks for more than a network."""
    if isinstance(config.get("architecture"), dict):
        raise CheckpointError(
            "It is one of feedback_adapter's, of before it had a file of its own: "
            "feedback_adapter.load reads it."
        )
    timm_name(config.get("architecture"))
    note = config.get("pretrained_cfg", config)
    kwargs = config.get("model_args") or {}
    for key, part in (("pretrained_cfg", note), ("model_args", kwargs)):
        if not isinstance(part, dict):
            raise CheckpointError(f"{key!r} is {shortly(part)}: it must be an object.")
    harmless(kwargs)
    size = note.get("input_size", [3, 224, 224])
    whole = isinstance(size, list) and all(type(n) is int for n in size)
    if not whole or len(size) != 3 or not all(0 < n <= _WIDEST for n in size):
        raise CheckpointError(
            f"'pretrained_cfg.input_size' is {shortly(size)}: it must be three whole numbers from "
            f"1 to {_WIDEST:,}, channels, height and width."
        )
    counts = [config.get("num_classes"), note.get("num_classes"), kwargs.get("num_classes")]
    said = [count for count in counts if count is not None]
    if not all(type(count) is int and count == said[0] for count in said):
        raise CheckpointError(
            f"'num_classes' is {' and '.join(map(shortly, said))} there: it must be one number, "
            "since timm would fill a last layer of another width with random numbers."
        )
