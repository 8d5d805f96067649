"""How photos become a model's input, and back for pictures."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from feedback_adapter.errors import InputError, ModelError, OptionsError, PhotosError, did_you_mean
from feedback_adapter.photos import Photo, as_rgb

_INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_LARGEST = 8192
_MOST = 1e6
_PHOTOS = (str, os.PathLike, Image.Image, np.ndarray)


class PhotoTransform:
    """What turns photos into a model's input: `Transform`, or any callable in its place.

    Photos are files, Pillow images, arrays or tensors; `feedback_adapter.photos` says which.
    """

    size: tuple[int, int]
    """Height and width of the input, in pixels."""

    def __call__(self, photo: Photo) -> Tensor:
        """One photo as (channels, height, width), floating point.

        Raises:
            InputError: It isn't there, or isn't a photo.
        """
        raise NotImplementedError

    def open(self, *photos: Photo) -> Tensor:
        """Photos as one batch (batch, channels, height, width).

        Raises:
            InputError: A file isn't there or isn't an image, there is no photo, or the model's
                input would be of different sizes.
        """
        if not photos:
            raise InputError("There is no photo. Pass at least one.")
        images = [self(photo) for photo in photos]
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise InputError(
                f"The transform makes inputs of different shapes, {sorted(shapes)}, which don't "
                "go into one batch: let it resize or crop to one size."
            )
        return torch.stack(images)

    def batches(
        self, photos: Iterable[Photo], size: int = 16
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Photos some at a time, so that many of them don't fill the memory.

        Args:
            photos: As many as you like; they are read when it is their turn.
            size: Photos per batch, at least 1. A batch may have fewer, and has where the
                transform makes inputs of different shapes.

        Yields:
            The numbers of the photos of a batch, from 0 on, and the batch.

        Raises:
            OptionsError: The size is less than 1.
            PhotosError: After the last batch, if photos couldn't be read; they are in no batch.

        Example::

            for rows, images in adapter.transform.batches(files, 16):
                result = adapter.refine(images, evidence.take(rows))
        """
        if not isinstance(size, int) or size < 1:
            raise OptionsError(
                f"size={size!r} is out of range: it must be a whole number from 1 on."
            )
        unread: dict[int, InputError] = {}
        numbered = enumerate(photos)
        while some := list(itertools.islice(numbered, min(size, sys.maxsize))):
            read: dict[int, Tensor] = {}
            for row, photo in some:
                try:
                    read[row] = self.open(photo)[0]
                except InputError as error:
                    unread[row] = error
            for shape in dict.fromkeys(image.shape for image in read.values()):
                rows = [row for row, image in read.items() if image.shape == shape]
                yield rows, torch.stack([read[row] for row in rows])
        if unread:
            raise PhotosError(unread)

    def picture(self, images: Tensor) -> Tensor:
        """Inputs (batch, channels, height, width) as pictures, values in [0, 1].

        What the transform does to colours isn't known here: each image is stretched from its
        lowest to its highest value.
        """
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return (images - low) / (high - low).clamp(min=1e-6)


@dataclasses.dataclass(frozen=True)
class Transform(PhotoTransform):
    """Resize to a fixed size (the aspect ratio isn't kept), then normalise.

    Args:
        size: Height and width in pixels.
        interpolation: `"bicubic"`, `"bilinear"`, `"nearest"` or another of Pillow's.
        mean: Per channel, of values in [0, 1]: three numbers, or one for all channels.
        std: Per channel, of values in [0, 1], above 0.

    Raises:
        InputError: Pillow has no such interpolation, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> Transform((2, 2))(np.zeros((8, 6, 3), np.uint8)).shape
        torch.Size([3, 2, 2])
    """

    size: tuple[int, int] = (224, 224)
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        size = self._numbers("size", (2,), "a height and a width, such as (224, 224)")
        if not all(side == int(side) and 1 <= side <= _LARGEST for side in size):
            raise InputError(
                f"size={self.size!r} is out of range: height and width are whole numbers of "
                f"pixels from 1 to {_LARGEST}."
            )
        object.__setattr__(self, "size", tuple(map(int, size)))
        for name in ("mean", "std"):
            values = self._numbers(name, (1, 3), "three numbers, one for each channel, or one")
            object.__setattr__(self, name, values)
        if not 1 / _MOST <= min(self.std) <= max(map(abs, self.std + self.mean)) <= _MOST:
            raise InputError(
                f"mean={self.mean!r}, std={self.std!r} is out of range: they are for values in "
                f"[0, 1], each std is above 0, and none is larger than {_MOST:g}."
            )
        if not isinstance(self.interpolation, str) or self.interpolation not in _INTERPOLATIONS:
            raise InputError(
                f"There is no interpolation {self.interpolation!r}. "
                f"{did_you_mean(self.interpolation, _INTERPOLATIONS)}"
            )

    def _numbers(self, name: str, counts: Sequence[int], possible: str) -> tuple[float, ...]:
        given = getattr(self, name)
        try:
            values = () if isinstance(given, str) else tuple(float(value) for value in given)
        except Exception:  # whatever numbers of a stranger's array raise
            values = ()
        if len(values) not in counts or not all(map(math.isfinite, values)):
            raise InputError(f"{name}={given!r:.200} isn't possible: give {possible}.")
        return values

    def __call__(self, photo: Photo) -> Tensor:
        """One photo as (channels, height, width), float32."""
        method = Image.Resampling[self.interpolation.upper()]
        height, width = self.size
        resized = as_rgb(photo).resize((width, height), method)
        pixels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        chw = pixels.reshape(*self.size, 3).permute(2, 0, 1).float() / 255
        return (chw - self._column(self.mean)) / self._column(self.std)

    def picture(self, images: Tensor) -> Tensor:
        """Normalised images (batch, channels, height, width) as values in [0, 1]."""
        return (images * self._column(self.std) + self._column(self.mean)).clamp(0, 1)

    @staticmethod
    def _column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device="cpu").reshape(-1, 1, 1)


@dataclasses.dataclass(frozen=True)
class CallableTransform(PhotoTransform):
    """Somebody else's transform, such as torchvision's or timm's. `transform_of` makes it.

    Args:
        function: Takes a Pillow image in mode RGB and returns a tensor of floating-point numbers
            (channels, height, width).
        size: Height and width of what it returned for a photo of 640 x 480 pixels.
    """

    function: Callable[[Image.Image], Any]
    size: tuple[int, int]

    def __call__(self, photo: Photo) -> Tensor:
        """One photo as (channels, height, width), as the function returns it.

        Raises:
            InputError: It isn't a photo, or the function fails or returns something else.
        """
        return _transformed(self.function, as_rgb(photo))


def transform_of(transform: object) -> PhotoTransform | None:
    """What `wrap` was given as `transform=`, tried on one photo if it isn't a `Transform`.

    Raises:
        ModelError: It can't be called with a Pillow image, or doesn't return a tensor of
            floating-point numbers (channels, height, width).
    """
    if transform is None or isinstance(transform, PhotoTransform):
        return transform
    if not callable(transform) or isinstance(transform, type):
        raise ModelError(
            f"transform={transform!r} can't be used: pass a feedback_adapter.Transform, or a "
            "function from a Pillow image to a tensor (channels, height, width)."
        )
    trial = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    try:
        height, width = _transformed(transform, trial).shape[-2:]
    except InputError as error:
        raise ModelError(f"transform can't be used, tried on a grey photo. {error}") from error
    return CallableTransform(transform, (height, width))


def opened(
    images: Any, transform: PhotoTransform | None, device: torch.device | None = None
) -> Any:
    """Photos as the model takes them; whatever isn't photos comes back as it is.

    Args:
        images: A photo or several: files, Pillow images, arrays, or a uint8 tensor. A list or
            tuple is photos if it holds nothing but files, Pillow images and arrays.
        transform: The model's, if it is known. Without it a tensor is never taken for photos.
        device: Where the result is to be.

    Raises:
        InputError: One can't be read, or the transform isn't known.
    """
    if isinstance(images, Tensor) and (transform is None or images.dtype != torch.uint8):
        return images
    several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
    photos: list[Any] = list(images) if several else [images]
    readable = isinstance(images, Tensor) or all(isinstance(photo, _PHOTOS) for photo in photos)
    if not photos or not readable:
        return images
    if transform is None:
        raise InputError(
            "How photos become the model's input isn't known: pass wrap(model, transform=...), "
            "or a tensor (batch, channels, height, width) as the model takes it."
        )
    return transform.open(*photos).to(device)


def _transformed(function: Callable[[Image.Image], Any], photo: Image.Image) -> Tensor:
    try:
        made = function(photo)
    except Exception as error:  # anything may go wrong in a stranger's function
        raise InputError(
            f"The transform failed on a photo of {photo.width} x {photo.height} pixels: "
            f"{type(error).__name__}: {error}"
        ) from error
    should = "it must return a tensor of floating-point numbers (channels, height, width)"
    if not isinstance(made, Tensor):
        raise InputError(f"The transform returned a {type(made).__name__}: {should}.")
    shape = tuple(made.shape)
    last = len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)
    if len(shape) != 3 or not made.is_floating_point() or last or not made.numel():
        dtype = str(made.dtype).removeprefix("torch.")
        raise InputError(f"The transform returned {dtype} of shape {shape}: {should}.")
    if not bool(made.isfinite().all()):
        raise InputError("The transform returned NaN or inf.")
    return made.detach().as_subclass(Tensor)


def pictures_of(images: Tensor, transform: PhotoTransform | None) -> Tensor | None:
    """Images as pictures (batch, 3, height, width) in [0, 1]; `None` if they aren't in colour."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        return None
    return (transform or PhotoTransform()).picture(images.detach().float().cpu())
