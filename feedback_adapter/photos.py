"""Photos as a viewer shows them: upright, 8 bits, red, green and blue, whatever holds them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from feedback_adapter.errors import FeedbackAdapterError, InputError, did_you_mean

__all__ = ["Photo", "as_rgb", "read_photo"]

Photo: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | Tensor"
"""A file, a Pillow image, an array (height, width[, 1, 3 or 4]) of uint8 or uint16, or a tensor
([1, 3 or 4,] height, width) of uint8 or uint16."""

_LOOKED_AT = 1000
"""So many names of a folder are compared with that of a file that isn't there."""

_CHANNELS = (1, 3, 4)
_SIXTEEN_BITS = (("I", "PNG"), ("I", "PPM"))  # older Pillow's mode for them, and today's
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def as_rgb(photo: Photo) -> Image.Image:
    """Any photo as a Pillow image in mode RGB.

    It is turned as its EXIF orientation says, 16 bits are scaled to 8, what is transparent is
    laid over white, and of an animation in a file the first frame is taken. Colour profiles aren't
    applied.

    Args:
        photo: A file or pixels; see `Photo`.

    Raises:
        InputError: The file isn't there or can't be decoded, is larger than Pillow allows
            (twice `PIL.Image.MAX_IMAGE_PIXELS`), or the pixels have another layout or dtype.

    Example:
        >>> import numpy as np
        >>> as_rgb(np.full((2, 3), 65535, np.uint16)).getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(photo, (str, os.PathLike)):
        return read_photo(photo)
    if isinstance(photo, Tensor):
        photo = _of_pixels(photo, "tensor", "([channels,] height, width)")
    elif isinstance(photo, np.ndarray):
        photo = _of_pixels(photo, "array", "(height, width[, channels])")
    elif not isinstance(photo, Image.Image):
        raise InputError(
            f"A photo can't be a {type(photo).__name__}: pass a file name, a Pillow image, a numpy "
            "array (height, width, channels) or a uint8 tensor (channels, height, width)."
        )
    with _named("The Pillow image"):
        return _rgb(photo)


def read_photo(file: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Image.Image:
    """A picture file as a Pillow image in mode RGB; see `as_rgb`.

    Args:
        file: Its path, or the open file.
        name: What errors call it; by default its path.

    Raises:
        InputError: It isn't there, isn't a regular file, or can't be decoded.
    """
    name = repr(os.fspath(cast("str", file)) if name is None else name)
    with _named(name):
        if isinstance(file, (str, os.PathLike)) and not (path := Path(file)).is_file():
            raise InputError(_why_not(path, name))
        with Image.open(file) as photo:
            return _rgb(photo)


def _why_not(path: Path, name: str) -> str:
    if path.is_dir():
        return f"{name} can't be read: it is a folder. Name the photos in it, as in {path / '*'}."
    if path.exists():
        return f"{name} can't be read: it isn't a regular file. Save the photo as a file."
    if str(path).startswith(("http:/", "https:/")):
        return f"There is no image {name}: photos aren't fetched. Download it, and name the file."
    if path.is_symlink():
        return f"{name} can't be read: it is a link that leads nowhere. Name the photo itself."
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = [entry.name for entry in itertools.islice(os.scandir(path.parent), _LOOKED_AT)]
    if not path.parent.is_dir():
        return f"There is no image {name}, nor its folder. Look how it is written."
    near = did_you_mean(path.name, beside)
    return f"There is no image {name}. " + (
        near if near.startswith("Did you mean") else f"Look what is in {str(path.parent)!r}."
    )


def _rgb(photo: Image.Image) -> Image.Image:
    if photo.format == "EPS":
        raise ValueError("PostScript is a program, and programs in pictures aren't run")
    photo.load()
    if 0 in photo.size:
        raise ValueError(f"it has {photo.width} x {photo.height} pixels, nothing to see")
    deep = photo.mode.startswith("I;16") or (photo.mode, photo.format) in _SIXTEEN_BITS
    if photo.mode in ("I", "F") and not deep:
        raise ValueError(
            f"with 32 bits per pixel (Pillow's mode {photo.mode}) it doesn't say which value is "
            "white; scale it to 8 or 16 bits"
        )
    turn = None
    with contextlib.suppress(Exception):  # a photo with broken EXIF data is shown as it is
        turn = _UPRIGHT.get(photo.getexif().get(_ORIENTATION, 1))
    if turn is not None:
        photo = photo.transpose(turn)
    if deep:
        pixels = np.array(photo)
        pixels[pixels == photo.info.get("transparency", -1)] = 65535
        photo = Image.fromarray(_eight_bits(pixels))
    if photo.has_transparency_data:
        photo = photo.convert("LA" if photo.mode == "La" else photo.mode).convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    plain = photo.convert("RGB")
    plain.info.clear()  # its orientation is done: who reads this again mustn't turn it again
    return plain


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # rounds; 65535 is 255


def _of_pixels(pixels: np.ndarray | Tensor, what: str, layout: str) -> Image.Image:
    shape = tuple(pixels.shape)
    dtype = getattr(pixels.dtype, "name", str(pixels.dtype)).removeprefix("torch.")
    if dtype not in ("uint8", "uint16"):
        raise InputError(
            f"The {what} is {dtype}: a photo has whole numbers, uint8 (0 to 255) or uint16. "
            "What is normalised already goes to the model, without a transform."
        )
    channels = shape[0 if what == "tensor" else -1] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in _CHANNELS or 0 in shape:
        raise InputError(
            f"The {what} has shape {shape}: one photo is {layout} with 1, 3 or 4 channels."
        )
    if isinstance(pixels, Tensor):
        if pixels.layout != torch.strided or pixels.is_meta:
            raise InputError("The tensor is sparse or has no values: pass an ordinary one.")
        pixels = pixels.detach().cpu().reshape(-1, *shape[-2:]).permute(1, 2, 0).numpy()
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    pixels = pixels if pixels.dtype == np.uint8 else _eight_bits(pixels)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))


@contextlib.contextmanager
def _named(name: str) -> Generator[None]:
    """Whatever goes wrong while `name` is decoded, as an InputError that says so."""
    try:
        yield
    except FeedbackAdapterError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not an image that Pillow can read. Save it as JPEG or PNG."
        ) from error
    except PermissionError as error:
        raise InputError(f"{name} can't be read: you may not read it.") from error
    except Exception as error:  # on a broken file, decoders raise nearly anything
        why = str(error).rstrip(".") or type(error).__name__
        raise InputError(f"{name} can't be read: {why}.") from error
