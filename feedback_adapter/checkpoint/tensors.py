"""A model's state as plain dense tensors and data, and back into a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.checkpoint.schema import only_data
from feedback_adapter.errors import CheckpointError

_SPARSE = {
    str(layout).removeprefix("torch."): layout
    for layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
}


def state_of(model: nn.Module, dtype: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of a model, as a checkpoint holds it.

    Args:
        model: Its `state_dict` may hold tensors of any dtype, shared and sparse ones, and extra
            state that is data.
        dtype: `"float16"` stores weights so, as long as they are float16 numbers.

    Returns:
        Contiguous tensors that share no memory; and what the config notes of them beside the
        file: `"dtype"`, and where there are such `"buffers"` (dtypes of buffers that aren't in the
        state), `"sparse"` (layouts and sizes) and `"extra"` (extra state that is no tensor).

    Raises:
        CheckpointError: A part of the state is something that a checkpoint can't hold.
    """
    state: dict[str, Any] = model.state_dict()
    extra = {name: _extra(name, value) for name, value in state.items() if not _is_tensor(value)}
    dense: dict[str, Tensor] = {}
    sparse: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        if name in extra:
            continue
        tensor: Tensor = value.detach()
        if tensor.is_meta:
            raise CheckpointError(f"{name!r} is on the meta device: it has no numbers to save.")
        layout = str(tensor.layout).removeprefix("torch.")
        if layout in _SPARSE:
            coo = tensor.to_sparse_coo().coalesce()
            dense[f"{name}.indices"], dense[f"{name}.values"] = coo.indices(), coo.values()
            sparse[name] = {"layout": layout, "size": list(tensor.shape)}
        elif tensor.layout != torch.strided or tensor.is_quantized:
            what = "quantised" if tensor.is_quantized else layout
            raise CheckpointError(f"{name!r} is a {what} tensor: a checkpoint can't hold such.")
        else:
            dense[name] = tensor
    if dtype == "float16" and all(_is_half(tensor) for tensor in dense.values()):
        dense = {n: t.half() if t.is_floating_point() else t for n, t in dense.items()}
    else:
        dtype = "as saved"
    notes = {"buffers": _buffers(model, state), "sparse": sparse, "extra": extra}
    noted = {key: note for key, note in notes.items() if note}
    return _apart(dense), {"dtype": dtype, **noted}


def fill(
    model: nn.Module, tensors: Mapping[str, Tensor], note: Mapping[str, Any], folder: Path
) -> None:
    """Load a state that `state_of` made into a model, in the dtypes that it had.

    The model is of the same structure; its parameters and buffers may have other dtypes.
    """
    try:
        state = _with_sparse(tensors, note.get("sparse", {}))
        if note["dtype"] == "as saved":
            dtypes = {name: tensor.dtype for name, tensor in state.items()}
            dtypes |= {name: _dtype(value) for name, value in note.get("buffers", {}).items()}
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                if name in dtypes:
                    tensor.data = tensor.data.to(dtypes[name])
        else:
            own = dict(model.named_parameters()) | dict(model.named_buffers())
            state = {n: t.to(own[n].dtype) if n in own else t for n, t in state.items()}
        for name in note.get("sparse", {}):  # a compressed one can't be copied into another
            place, _, leaf = name.rpartition(".")
            old = getattr(model.get_submodule(place), leaf)
            new = state[name]
            setattr(
                model.get_submodule(place),
                leaf,
                nn.Parameter(new) if isinstance(old, nn.Parameter) else new,
            )
        model.load_state_dict({**state, **note.get("extra", {})})
    except CheckpointError:
        raise
    except Exception as error:  # a model's own loading may fail in any way
        raise CheckpointError(f"The weights of {folder} don't fit the model: {error}") from error


def check_shapes(model: nn.Module, shapes: Mapping[str, Sequence[int]], folder: Path) -> None:
    """Refuse tensors whose shapes don't fit a model, which may be on the meta device."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found = tuple(shapes.get(name, tensor.shape))
        if found != tuple(tensor.shape) and not nn.parameter.is_lazy(tensor):
            raise CheckpointError(
                f"The weights of {folder} don't fit the model: {name!r} is {found} there, and "
                f"{tuple(tensor.shape)} in the model."
            )


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and not nn.parameter.is_lazy(value)


def _extra(name: str, value: Any) -> Any:
    """Extra state that JSON gives back as it was."""
    if nn.parameter.is_lazy(value):
        raise CheckpointError(f"{name!r} has no size yet: run the model once, then save it.")
    data = only_data(value, f"The model's state {name!r}")
    if json.loads(json.dumps(data)) != value:
        raise CheckpointError(
            f"The model's state {name!r} holds a {type(value).__name__} that a checkpoint would "
            "change: it keeps text, finite numbers, lists, and objects whose keys are text."
        )
    return data


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers, contiguous, in tensors that share no memory."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        apart[name] = (tensor.clone() if pointer in seen else tensor).contiguous()
        seen.add(pointer)
    return apart


def _is_half(tensor: Tensor) -> bool:
    """Whether float16 loses nothing of a tensor of a float32 model."""
    if not tensor.is_floating_point():
        return True
    return tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor)


def _buffers(model: nn.Module, saved: Mapping[str, Any]) -> dict[str, str]:
    """The dtypes of buffers that aren't in the state and aren't float32."""
    return {
        name: str(buffer.dtype).removeprefix("torch.")
        for name, buffer in model.named_buffers()
        if name not in saved and buffer.is_floating_point() and buffer.dtype != torch.float32
    }


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"The config: weights.buffers names no dtype of torch: {name!r}.")
    return dtype


def _with_sparse(
    tensors: Mapping[str, Tensor], sparse: Mapping[str, Mapping[str, Any]]
) -> dict[str, Tensor]:
    state = dict(tensors)
    for name, note in sparse.items():
        indices, values = state.pop(f"{name}.indices"), state.pop(f"{name}.values")
        coo = torch.sparse_coo_tensor(
            indices, values, note["size"], check_invariants=True
        ).coalesce()
        layout = _SPARSE[note["layout"]]
        state[name] = coo if layout == torch.sparse_coo else coo.to_sparse(layout=layout)
    return state
