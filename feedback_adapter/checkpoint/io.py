"""A checkpoint's parts: read from a folder, and written to one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.format import (
    Card,
    find,
    read_card,
    read_config,
    read_priors,
    read_weights,
    write_folder,
)
from feedback_adapter.checkpoint.rebuild import check_same, of_timm
from feedback_adapter.defaults import Defaults
from feedback_adapter.errors import CheckpointError
from feedback_adapter.outputs import Output
from feedback_adapter.prior import LabelPrior
from feedback_adapter.transform import Transform

__all__ = ["Checkpoint", "described", "read", "write"]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Everything that a checkpoint is made of, as an adapter holds it.

    Args:
        model: With its weights.
        outputs: What the model returns, by name.
        transform: How photos become its input, if known.
        defaults: What `refine` does where it isn't told.
        priors: Label statistics, by output.
        card: What the checkpoint says of itself.
    """

    model: nn.Module
    outputs: Mapping[str, Output]
    transform: Transform | None
    defaults: Defaults
    priors: Mapping[str, LabelPrior]
    card: Card


def read(
    name: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "cpu"
) -> Checkpoint:
    """Read a checkpoint. See `feedback_adapter.load`."""
    folder = find(name)
    config = read_config(folder)
    tensors = read_weights(folder, config)
    card = read_card(folder, config)
    if model is None:
        if card.architecture is None:
            raise CheckpointError(
                f"{folder} was saved from a model that only you can build: load(..., model=yours)."
            )
        model = card.architecture.build()
    _fill(model, tensors, config["weights"], folder)
    outputs = {key: _output(model, key, note, folder) for key, note in config["outputs"].items()}
    return Checkpoint(
        model.to(device).eval(),
        outputs,
        Transform(**config["transform"]) if config.get("transform") else None,
        _defaults(config.get("refine") or {}),
        read_priors(folder, config),
        card,
    )


def _fill(
    model: nn.Module, tensors: Mapping[str, Tensor], note: Mapping[str, Any], folder: Path
) -> None:
    """Load weights into a model, in the dtypes that the checkpoint says."""
    if note["dtype"] == "as saved":
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        for name, value in note.get("buffers", {}).items():
            dtype = getattr(torch, value, None)
            if not isinstance(dtype, torch.dtype):
                raise CheckpointError(f"{folder}: weights.buffers.{name} is no dtype: {value!r}.")
            dtypes[name] = dtype
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in dtypes:
                tensor.data = tensor.data.to(dtypes[name])
    else:
        own = model.state_dict()
        tensors = {n: t.to(own[n].dtype) if n in own else t for n, t in tensors.items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"The weights of {folder} don't fit the model: {error}") from error


def _output(model: nn.Module, key: str, note: Mapping[str, Any], folder: Path) -> Output:
    decoder = note.get("decoder")
    try:
        part = model.get_submodule(decoder) if decoder else None
    except AttributeError as error:
        raise CheckpointError(
            f"{folder}: 'outputs.{key}.decoder' is {decoder!r}, which the model hasn't: {error}."
        ) from error
    return Output(
        tuple(note["labels"]), note["kind"], note.get("select"), note.get("hierarchy"), part
    )


def _defaults(note: Mapping[str, Any]) -> Defaults:
    fields = {key: value for key, value in note.items() if value is not None}
    if isinstance(fields.get("pivots"), list):
        fields["pivots"] = tuple(fields["pivots"])
    return Defaults(**fields)


def write(
    checkpoint: Checkpoint, folder: Path, architecture: Architecture | None = None
) -> dict[str, Any]:
    """Write a checkpoint to a folder, as `read` reads it. See `Adapter.save`.

    Weights that were stored as float16 and still are float16 numbers are stored so again.
    """
    model, card = checkpoint.model, checkpoint.card
    architecture = architecture or card.architecture or of_timm(model)
    if architecture is not None:
        check_same(architecture, model)
    if checkpoint.transform is not None and not isinstance(checkpoint.transform, Transform):
        raise CheckpointError(
            f"transform is a {type(checkpoint.transform).__name__}, which a checkpoint can't hold: "
            "give a feedback_adapter.Transform, or set adapter.transform = None."
        )
    tensors, dtype = _weights(model, card.dtype)
    config: dict[str, Any] = {
        "name": folder.name,
        **card.facts(),
        "architecture": dataclasses.asdict(architecture) if architecture else None,
        "outputs": {name: described(spec, model) for name, spec in checkpoint.outputs.items()},
        "transform": dataclasses.asdict(checkpoint.transform) if checkpoint.transform else None,
    }
    if checkpoint.defaults != Defaults():
        config["refine"] = _noted(checkpoint.defaults)
    return write_folder(
        folder,
        config,
        tensors,
        dtype=dtype,
        buffers=_unsaved_buffers(model, tensors) if dtype == "as saved" else None,
        priors=checkpoint.priors,
        text=card.text,
    )


def described(spec: Output, model: nn.Module) -> dict[str, Any]:
    """What config.json says of an output."""
    note: dict[str, Any] = {"kind": spec.kind, "labels": list(spec.labels)}
    if spec.select is not None:
        note["select"] = spec.select
    if spec.hierarchy is not None:
        note["hierarchy"] = {name: list(labels) for name, labels in spec.hierarchy.items()}
    if spec.decoder is not None:
        names = [name for name, module in model.named_modules() if module is spec.decoder]
        if not names:
            raise CheckpointError(
                "The decoder of an output must be a part of the model, to be saved with it."
            )
        note["decoder"] = names[0]
    return note


def _noted(defaults: Defaults) -> dict[str, Any]:
    """What config.json says of how `refine` works: the fields that say something."""
    usual = {"pivots", "options"}
    fields = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
    return {key: value for key, value in fields.items() if value or key in usual}


def _weights(model: nn.Module, dtype: str) -> tuple[dict[str, Tensor], str]:
    """The model's tensors, sharing no memory, and how they are stored."""
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{name!r} of the model's state is a {type(value).__name__}, not a tensor: "
                "a checkpoint can't hold it."
            )
    if dtype == "float16" and all(_is_half(tensor) for tensor in state.values()):
        state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    else:
        dtype = "as saved"
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        pointer = tensor.untyped_storage().data_ptr()
        tensors[name] = (tensor.clone() if pointer in seen else tensor).contiguous()
        seen.add(pointer)
    return tensors, dtype


def _is_half(tensor: Tensor) -> bool:
    """Whether float16 loses nothing of a tensor of a float32 model."""
    if not tensor.is_floating_point():
        return True
    return tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor)


def _unsaved_buffers(model: nn.Module, saved: Mapping[str, Tensor]) -> dict[str, str]:
    """The dtypes of buffers that aren't in the state and aren't float32."""
    return {
        name: str(buffer.dtype).removeprefix("torch.")
        for name, buffer in model.named_buffers()
        if name not in saved and buffer.is_floating_point() and buffer.dtype != torch.float32
    }
