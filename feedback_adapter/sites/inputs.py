"""What a model is called with: images, and whatever else it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from feedback_adapter.errors import InputError
from feedback_adapter.sites.structure import map_tensors, named_tensors

__all__ = ["Inputs"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The positional and keyword arguments of one batch.

    The first tensor among them is the images; its first dimension is the batch.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, images: Any) -> Inputs:
        """Read what a user passed: a tensor, a tuple of arguments, or a dict of keywords.

        Raises:
            InputError: No tensor in it, no batch dimension, or NaN or inf in an image.
        """
        if isinstance(images, cls):
            return images
        if isinstance(images, Mapping):
            inputs = cls((), {str(k): v for k, v in cast("Mapping[Any, Any]", images).items()})
        elif isinstance(images, (tuple, list)):
            inputs = cls(tuple(cast("list[Any]", images)), {})
        else:
            inputs = cls((images,), {})
        if not any(True for _ in named_tensors((inputs.args, inputs.kwargs))):
            raise InputError(
                f"images is a {type(images).__name__}: pass a tensor (batch, channels, height, "
                "width), a tuple of the model's arguments or a dict of its keyword arguments."
            )
        if inputs.images.ndim == 0:
            raise InputError(
                "images has no batch dimension: pass (batch, channels, height, width)."
            )
        if inputs.images.is_inference():  # made under inference_mode: autograd refuses it
            copied = map_tensors((inputs.args, inputs.kwargs), lambda _, t: t.clone())
            inputs = cls(*copied)
        if inputs.images.is_floating_point() and not inputs.images.is_meta:
            finite = inputs.images.isfinite().flatten(1).all(1) if inputs.images.ndim > 1 else None
            if finite is not None and not bool(finite.all()):
                bad = (~finite).nonzero().flatten().tolist()
                raise InputError(f"NaN or inf in image {bad[0]} (of {len(bad)} such images).")
        return inputs

    @property
    def images(self) -> Tensor:
        """The first tensor, (batch, ...)."""
        return next(tensor for _, tensor in named_tensors((self.args, self.kwargs)))

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.images.shape[0]

    def replace(self, images: Tensor) -> Inputs:
        """The same arguments with other images."""
        old = self.images
        return Inputs(
            *map_tensors((self.args, self.kwargs), lambda _, t: images if t is old else t)
        )

    def take(self, rows: Tensor) -> Inputs:
        """The arguments of some of the images, by index (k,)."""
        batch = self.batch

        def rows_of(_: str, tensor: Tensor) -> Tensor:
            return tensor[rows] if tensor.ndim and tensor.shape[0] == batch else tensor

        return Inputs(*map_tensors((self.args, self.kwargs), rows_of))

    def to(self, device: torch.device) -> Inputs:
        """The arguments on another device."""
        return Inputs(*map_tensors((self.args, self.kwargs), lambda _, t: t.to(device)))
