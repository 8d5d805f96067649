"""Flickr8k: photos with five captions each (Hodosh, Young and Hockenmaier, JAIR 2013).

Two layouts are read:

- packed: `captions.json` ({name: {"split": ..., "captions": [...]}}) and `images.zip`
  (or the photos unpacked in `images/`);
- official, as users of torchvision's `Flickr8k` have it: a folder of photos,
  `Flickr8k.token.txt` and `Flickr_8k.{train,dev,test}Images.txt`, the text files beside
  the photos or in a folder of their own (`Flickr8k_text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fa_evaluate.data.base import CaptionedImages, LabelledImages
from fa_evaluate.data.files import (
    Opener,
    field,
    folder_opener,
    photo_name,
    read_json,
    read_lines,
    zip_opener,
)
from fa_evaluate.data.words import build_vocabulary, targets_for
from feedback_adapter.errors import DataError

__all__ = ["CaptionedImages", "read_captions", "read_words"]

_TOKENS = "Flickr8k.token.txt"
_LISTS = {split: f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test")}
_TEXT_FOLDERS = ("", "Flickr8k_text", "text", "annotations")
_IMAGE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images", "")


def read_words(directory: Path, labels: Sequence[str] | None) -> LabelledImages:
    """Read images with the words of their captions as labels.

    Args:
        directory: A folder in either layout.
        labels: The words; `None` for those in the captions of at least 50 training images.

    Raises:
        DataError: Neither layout is there, or simplemma isn't installed.
    """
    data = read_captions(directory)
    words = build_vocabulary(data.of_split("train")) if labels is None else tuple(labels)
    if not words:
        raise DataError(f"No word is in the captions of 50 training images in {directory!s}.")
    return LabelledImages(
        data.names, data.split, words, targets_for(data.captions, words), data.opener
    )


def read_captions(directory: Path) -> CaptionedImages:
    """Read images and captions, in whichever layout the folder is.

    Raises:
        DataError: Neither layout is there; the message says what was looked for.
    """
    if (directory / "captions.json").exists():
        return _read_pack(directory)
    for name in _TEXT_FOLDERS:
        if (directory / name / _TOKENS).exists():
            return _read_official(directory, directory / name)
    folders = ", ".join(name or "." for name in _TEXT_FOLDERS)
    raise DataError(
        f"No Flickr8k in {str(directory)!r}: there is neither captions.json (packed layout) "
        f"nor {_TOKENS} (official layout; looked in {folders})."
    )


def _read_pack(directory: Path) -> CaptionedImages:
    file = directory / "captions.json"
    found = read_json(file, dict)
    split: list[str] = []
    captions: list[tuple[str, ...]] = []
    for name, entry in found.items():
        where = repr(photo_name(name, file))
        split.append(field(entry, "split", str, file, where))
        captions.append(tuple(field(entry, "captions", list, file, where)))
        if split[-1] not in (*_LISTS, "none"):
            raise DataError(
                f"{str(file)!r}: 'split' of {where} is {split[-1]!r}: it must be "
                f"{', '.join(_LISTS)} or none."
            )
        if not all(isinstance(caption, str) for caption in captions[-1]):
            raise DataError(f"{str(file)!r}: a caption of {where} isn't text.")
    return CaptionedImages(tuple(found), tuple(split), tuple(captions), pack_opener(directory))


def pack_opener(directory: Path) -> Opener:
    """Open a pack's images: from images.zip, or unpacked in images/.

    Raises:
        DataError: Neither is there.
    """
    if (directory / "images.zip").is_file():
        return zip_opener(directory / "images.zip")
    if (directory / "images").is_dir():
        return folder_opener(directory / "images")
    raise DataError(f"No images in {str(directory)!r}: looked for images.zip and images/.")


def _read_official(directory: Path, text: Path) -> CaptionedImages:
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(text / _TOKENS), 1):
        key, tab, caption = line.partition("\t")
        name = key.rpartition("#")[0]
        if tab and name:
            captions.setdefault(photo_name(name, text / _TOKENS), []).append(caption)
        elif line.strip():
            raise DataError(
                f"Line {number} of {str(text / _TOKENS)!r} isn't 'photo#number', a tab and a "
                f"caption: {line[:60]!r}."
            )
    split: dict[str, str] = {}
    for which, file in _LISTS.items():
        listed = read_lines(text / file) if (text / file).exists() else []
        for name in filter(None, map(str.strip, listed)):
            if split.setdefault(photo_name(name, text / file), which) != which:
                raise DataError(
                    f"{name!r} is in {_LISTS[split[name]]} and in {file} of {str(text)!r}: an "
                    "image can be in one split only."
                )
    if not split:
        raise DataError(
            f"No split lists beside {str(text / _TOKENS)!r}: looked for "
            f"{', '.join(_LISTS.values())}."
        )
    folder = _image_folder(directory, split)
    # The token file has captions of a photo that was never published. Photos of a split
    # must all be there; one that is in no split and absent is left out.
    names = [name for name in captions if name in split or (folder / name).is_file()]
    missing = [name for name in split if name not in captions or not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(split)} images of the split lists have no photo in "
            f"{str(folder)!r} or no caption in {_TOKENS}, for one {missing[0]!r}."
        )
    return CaptionedImages(
        tuple(names),
        tuple(split.get(name, "none") for name in names),
        tuple(tuple(captions[name]) for name in names),
        folder_opener(folder),
    )


def _image_folder(directory: Path, split: dict[str, str]) -> Path:
    first = next(iter(split))
    for name in _IMAGE_FOLDERS:
        if (directory / name / first).is_file():
            return directory / name
    folders = ", ".join(name or "." for name in _IMAGE_FOLDERS)
    raise DataError(f"The photos aren't in {str(directory)!r}: looked for {first!r} in {folders}.")
