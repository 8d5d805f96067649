"""Whether a model that was built again is the one that was saved."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.checkpoint.outline import apart, facts_of
from feedback_adapter.checkpoint.schema import LARGEST_IMAGE
from feedback_adapter.errors import CheckpointError
from feedback_adapter.outputs import Output, read
from feedback_adapter.sites import frozen
from feedback_adapter.sites.nested import named_tensors
from feedback_adapter.timm_notes import stem_channels
from feedback_adapter.transform import PhotoTransform

_ROUNDING = 1e-6
"""How far outputs in float64 may be apart, as a share of the largest."""
_SHARES = {True: 1e-3, False: 1e-2}
"""How far numbers may be apart on another machine, both on a CPU or not: GPUs keep ten bits."""
_VALUES = 8
"""So many numbers of each output tell one model from another."""


def check_alike(model: nn.Module, again: nn.Module, transform: PhotoTransform | None) -> None:
    """Check that two models return the same for random images, of two sizes where they can.

    Raises:
        CheckpointError: They don't; or they can't be compared, and are made of other parts.
    """
    compared = 0
    for images in _images(model, transform):
        one, two = _run(model, images), _run(again, images)
        size = "x".join(map(str, images.shape[2:]))
        if (one is None) != (two is None):
            takes = "doesn't take" if two is None else "takes"
            raise CheckpointError(f"The model that is built {takes} images of {size}.")
        if one is not None and two is not None:
            compared += 1
            if not _same(one, two) and not _same_in_double(model, again, images):
                different = apart(facts_of(model), facts_of(again))
                raise CheckpointError(
                    f"The model that is built returns something else for images of {size} "
                    f"(first difference: {different[0] if different else 'unknown'})."
                )
        if compared == 2:
            return
    different = apart(facts_of(model), facts_of(again))
    if not compared and different:
        raise CheckpointError(
            "The model that is built can't be compared, since neither takes images of the usual "
            f"sizes; it is made of other parts (first difference: {different[0]})."
        )


def returned(
    model: nn.Module, outputs: Mapping[str, Output], transform: PhotoTransform | None
) -> dict[str, Any] | None:
    """What a model returns for an image that anybody can make again, for a config.

    Args:
        model: The model.
        outputs: What it returns, by name.
        transform: How photos become its input; says the size of images, if known.

    Returns:
        The image's height and width, and some numbers of each output; `None` if the model takes
        no image of the usual sizes, or never returns the same.
    """
    for images in _images(model, transform):
        size = list(images.shape[2:])
        values = _values(model, outputs, size) if max(size) <= LARGEST_IMAGE else None
        if values is not None:
            again = _values(model, outputs, size)
            note = {"size": size, "device": _like(model).device.type, "values": values}
            return note if again == values else None
    return None


def check_returned(
    model: nn.Module, outputs: Mapping[str, Output], note: Mapping[str, Any]
) -> None:
    """Check that a model returns what a config says.

    Args:
        model: The model, with the checkpoint's weights.
        outputs: What it returns, by name.
        note: What `returned` gave.

    Raises:
        CheckpointError: It returns something else.
    """
    like = _like(model)
    share = max(
        _SHARES[note["device"] == like.device.type == "cpu"], 8 * torch.finfo(like.dtype).eps
    )
    size, now = "x".join(map(str, note["size"])), _values(model, outputs, note["size"])
    for name, old in note["values"].items():
        new = (now or {}).get(name, [])
        far = share * max(map(abs, [*old, *new]))
        if len(old) != len(new) or any(abs(a - b) > far for a, b in zip(old, new, strict=True)):
            raise CheckpointError(
                f"The weights fit this {type(model).__name__}, but it isn't the model that was "
                f"saved: of an image of {size}, {name!r} was {old} and is {new or 'an error'}. "
                "Build the model as it was built then, with the same arguments and the same code."
            )


def _values(
    model: nn.Module, outputs: Mapping[str, Output], size: list[int]
) -> dict[str, list[float]] | None:
    """Some numbers of each output for a wave whose frequency rises; `None` after an error."""
    shape = (1, stem_channels(model), *size)
    wave = torch.arange(math.prod(shape), dtype=torch.float64, device="cpu").square().mul(0.1).sin()
    try:
        with frozen(model), torch.no_grad():
            found = read(model(wave.reshape(shape).to(_like(model))), outputs)
    except Exception:  # a model may refuse a size in any way
        return None
    flat = {name: value.detach().double().cpu().flatten() for name, value in found.items()}
    some = {name: value[:: -(-len(value) // _VALUES)].tolist() for name, value in flat.items()}
    fine = all(values and all(map(math.isfinite, values)) for values in some.values())
    return {n: [float(f"{v:.6g}") for v in values] for n, values in some.items()} if fine else None


def _images(model: nn.Module, transform: PhotoTransform | None) -> Iterator[Tensor]:
    """One random image of each size that the model may take, the likeliest first."""
    sizes = [*usual_sizes(model, transform), (96, 64), (224, 224), (64, 64), (32, 32), (299, 299)]
    like = _like(model)
    generator = torch.Generator().manual_seed(0)
    for size in dict.fromkeys(sizes):
        shape = (1, stem_channels(model), *size)
        yield torch.randn(shape, generator=generator, device="cpu").to(like)


def usual_sizes(model: nn.Module, transform: PhotoTransform | None) -> list[tuple[int, int]]:
    """Heights and widths of the images that a model says it takes, the likeliest first."""
    usual = getattr(model, "pretrained_cfg", None)
    sizes: list[tuple[int, int]] = [transform.size] if transform is not None else []
    for module in model.modules():
        own = getattr(module, "img_size", None) or getattr(module, "image_size", None)
        own = (own, own) if isinstance(own, int) else own
        if isinstance(own, tuple | list) and len(own) == 2 and all(type(n) is int for n in own):
            sizes.append((own[0], own[1]))
    if isinstance(usual, dict) and usual.get("input_size"):
        sizes.append(tuple(usual["input_size"][1:]))
    return sizes


def _like(model: nn.Module) -> Tensor:
    """A tensor of the device and the dtype that images must have."""
    tensors = (*model.parameters(), *model.buffers())
    return next((t for t in tensors if t.is_floating_point()), torch.empty(0, device="cpu"))


def _run(model: nn.Module, images: Tensor) -> dict[str, Tensor] | None:
    """What a model returns, by selector; `None` if it doesn't take such images."""
    try:
        with frozen(model), torch.no_grad():
            return {name: tensor.clone() for name, tensor in named_tensors(model(images.clone()))}
    except Exception:  # a model may refuse a size in any way
        return None


def _same(one: dict[str, Tensor], two: dict[str, Tensor], share: float = 0.0) -> bool:
    """Whether two results are the same, up to a share of the largest number."""
    if one.keys() != two.keys():
        return False
    for name, tensor in one.items():
        other = two[name]
        if tensor.shape != other.shape or tensor.dtype != other.dtype:
            return False
        bound = share * float(tensor.abs().max()) if share and tensor.numel() else 0.0
        if not torch.allclose(tensor, other, rtol=0.0, atol=bound, equal_nan=True):
            return False
    return True


def _same_in_double(model: nn.Module, again: nn.Module, images: Tensor) -> bool:
    """Another memory layout may round differently: in float64 that is next to nothing."""
    try:
        one, two = copy.deepcopy(model).double(), copy.deepcopy(again).double()
    except Exception:  # not every model can be copied
        return False
    first, second = _run(one, images.double()), _run(two, images.double())
    return first is not None and second is not None and _same(first, second, _ROUNDING)
