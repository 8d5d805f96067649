"""COCO's official layout: which split a photo is in, and where its file is.

COCO's own validation images are the test split, as in Feedback-prop; a tenth of the training
images, chosen by a hash of their name, is the dev split. So an image is in the same split
wherever it is read, and however many others are there.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from fa_evaluate.data.files import Opener, entries, folder_opener, photo_name, unique
from feedback_adapter.errors import DataError

__all__ = ["ID", "OfficialPhotos", "split_of"]

ID = (int, str)
"""What an id may be."""


def split_of(name: str, official: str) -> str:
    """The split of an image: test for COCO's val, and for test; dev for a tenth of the others.

    Args:
        name: The file name.
        official: COCO's split, such as "train2014" or "val2014".
    """
    if official.startswith(("val", "test")):
        return "test"
    return "dev" if zlib.crc32(name.encode("utf-8", "surrogatepass")) % 10 == 0 else "train"


@dataclasses.dataclass
class OfficialPhotos:
    """The photos of all `KIND_SPLIT.json` files in a folder or its `annotations`.

    Args:
        directory: The folder.
        kind: "instances" or "captions".
    """

    directory: Path
    kind: str
    _found: list[tuple[str, str, Path]] = dataclasses.field(
        default_factory=list[tuple[str, str, Path]], init=False, repr=False
    )

    @property
    def files(self) -> list[Path]:
        """The annotation files that are there, in the order of their names."""
        places = (f"{self.kind}_*.json", f"annotations/{self.kind}_*.json")
        return sorted(file for place in places for file in self.directory.glob(place))

    def add(self, file: Path, content: dict[str, Any]) -> list[int | str]:
        """Take in the photos of one annotation file.

        Args:
            file: One of `files`.
            content: What it holds.

        Returns:
            The photos' ids, in the file's order.

        Raises:
            DataError: An entry is malformed, an id or a name is there twice, or the photos are
                nowhere.
        """
        official = file.stem.removeprefix(f"{self.kind}_")
        images = list(entries(content, "images", file, id=ID, file_name=str))
        names = [photo_name(name, file) for _, name in images]
        unique([number for number, _ in images], file, "image id")
        unique(names, file, "file_name")
        folder = self._folder(file, photo_name(official, file), names)
        self._found += [(name, official, folder) for name in names]
        return [number for number, _ in images]

    def named(self) -> tuple[list[str], list[str]]:
        """Names and splits of all photos: file names, or `split/name` where splits share them."""
        count = Counter(name for name, _, _ in self._found)
        names = [f"{of}/{name}" if count[name] > 1 else name for name, of, _ in self._found]
        unique(names, self.directory, "photo")
        return names, [split_of(name, official) for name, official, _ in self._found]

    def opener(self) -> Opener:
        """Opens all photos by the names that `named` gives, each from its own split's folder."""
        places = {
            shown: (folder_opener(folder), name)
            for shown, (name, _, folder) in zip(self.named()[0], self._found, strict=True)
        }

        def open_photo(shown: str) -> Image.Image:
            if shown not in places:
                raise DataError(f"No photo of {str(self.directory)!r} is called {shown!r}.")
            opener, name = places[shown]
            return opener(name)

        return open_photo

    def _folder(self, file: Path, official: str, names: list[str]) -> Path:
        candidates = (official, f"images/{official}", "images", ".")
        for candidate in candidates:
            if names and (self.directory / candidate / names[0]).is_file():
                return self.directory / candidate
        first = repr(names[0]) if names else "any image"
        raise DataError(
            f"The images of {str(file)!r} aren't in {str(self.directory)!r}: looked for {first} in "
            f"{', '.join(candidates)}."
        )
