"""How photos become a model's input, and back for pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from feedback_adapter.errors import InputError, did_you_mean

__all__ = ["Transform"]

_INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclasses.dataclass(frozen=True)
class Transform:
    """Resize to a fixed size (the aspect ratio isn't kept), then normalise.

    Args:
        size: Height and width in pixels.
        interpolation: `"bicubic"`, `"bilinear"`, `"nearest"` or another of Pillow's.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].

    Raises:
        InputError: Pillow has no such interpolation.
    """

    size: tuple[int, int] = (224, 224)
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):  # JSON knows no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.interpolation not in _INTERPOLATIONS:
            raise InputError(
                f"There is no interpolation {self.interpolation!r}. "
                f"{did_you_mean(self.interpolation, _INTERPOLATIONS)}"
            )

    def __call__(self, photo: Image.Image) -> Tensor:
        """One photo as (channels, height, width), float32."""
        method = Image.Resampling[self.interpolation.upper()]
        height, width = self.size
        photo = photo.convert("RGB").resize((width, height), method)
        pixels = torch.frombuffer(bytearray(photo.tobytes()), dtype=torch.uint8)
        chw = pixels.reshape(*self.size, 3).permute(2, 0, 1).float() / 255
        return (chw - self._column(self.mean)) / self._column(self.std)

    def open(self, *paths: str | Path) -> Tensor:
        """Photos from files as one batch (batch, channels, height, width).

        Raises:
            InputError: A file isn't there, or isn't an image.
        """
        photos: list[Tensor] = []
        for path in paths:
            try:
                with Image.open(path) as photo:
                    photos.append(self(photo))
            except FileNotFoundError as error:
                raise InputError(f"There is no image {str(path)!r}.") from error
            except UnidentifiedImageError as error:
                raise InputError(f"{str(path)!r} is not an image that Pillow can read.") from error
            except OSError as error:  # a folder, no permission, or a photo that is cut off
                raise InputError(f"{str(path)!r} can't be read: {error}.") from error
        return torch.stack(photos)

    def picture(self, images: Tensor) -> Tensor:
        """Normalised images (batch, channels, height, width) as values in [0, 1]."""
        return (images * self._column(self.std) + self._column(self.mean)).clamp(0, 1)

    @staticmethod
    def _column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values).reshape(-1, 1, 1)
