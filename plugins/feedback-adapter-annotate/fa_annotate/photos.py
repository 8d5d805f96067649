"""The photos of a folder: which there are, and each of them read within limits.

Only photos that lie in the folder are read: a link that leads out of it is none of them.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fa_annotate.errors import AnnotateError
from feedback_adapter.photos import read_photo

__all__ = ["MOST_BYTES", "MOST_PIXELS", "Photos", "as_jpeg", "check_size"]

MOST_PIXELS = 64_000_000
"""Larger photos aren't decoded, for that would fill the memory."""

MOST_BYTES = 32 * 2**20
"""Larger files aren't taken from a browser."""

_SHOWN = 1600
"""Pixels of the longer side of what the page shows."""

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclasses.dataclass
class Photos:
    """The photos in a folder and in those below it, by number. Make it with `of`.

    Args:
        folder: Where they are, without links.
        names: Their names, from the folder on, with `/`; sorted as people count.
    """

    folder: Path
    names: list[str]

    @classmethod
    def of(cls, folder: Path) -> Photos:
        """Look for the photos of a folder. Hidden ones are left out.

        Raises:
            AnnotateError: There is no such folder, or no photo in it.
        """
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "isn't there"
            raise AnnotateError(f"{str(folder)!r} {what}: name a folder with photos.")
        folder = folder.resolve()
        names = sorted(_names(folder), key=_counted)
        if not names:
            endings = " ".join(sorted(_ENDINGS))
            raise AnnotateError(
                f"There is no photo in {str(folder)!r}. Files that end in {endings} are photos."
            )
        return cls(folder, names)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The name of a photo.

        Raises:
            AnnotateError: There is no such photo.
        """
        if not 0 <= index < len(self.names):
            raise AnnotateError(f"There is no photo {index}: there are {len(self.names)}.")
        return self.names[index]

    def open(self, index: int) -> Image.Image:
        """A photo, upright and in colour.

        Raises:
            AnnotateError: There is no such photo, it has too many pixels, or it has become a link
                that leads out of the folder.
            InputError: It can't be read.
        """
        name = self.name(index)
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise AnnotateError(f"{name!r} leads out of {str(self.folder)!r}, so it isn't read.")
        check_size(path, name)
        return read_photo(path, name)


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix.lower() not in _ENDINGS or any(part.startswith(".") for part in name.parts):
            continue
        if path.is_file() and path.resolve().is_relative_to(folder):
            yield name.as_posix()


def _counted(name: str) -> list[tuple[int, int, str]]:
    """Sorts `photo10` after `photo9`."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p.lower()) for p in parts]


def check_size(file: Path | io.BytesIO, name: str) -> None:
    """Refuse a photo with too many pixels before it is decoded.

    Raises:
        AnnotateError: It has too many. What isn't a photo passes: who reads it, says so.
    """
    try:
        with Image.open(file) as photo:
            width, height = photo.size
    except Image.DecompressionBombError:
        width = height = MOST_PIXELS
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Warning):
        return
    if width * height > MOST_PIXELS:
        raise AnnotateError(
            f"{name!r} has more than {MOST_PIXELS // 10**6} million pixels: make it smaller first."
        )


def as_jpeg(photo: Image.Image, longest: int = _SHOWN) -> bytes:
    """What a browser shows of a photo.

    Args:
        photo: In mode RGB.
        longest: Pixels of the longer side at most.
    """
    shown = photo.copy()
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=88)
    return file.getvalue()
