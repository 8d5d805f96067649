"""Readers of labelled images: what the zoo's recipes train on and `evaluate` measures on.

A checkpoint's `feedback_adapter.json` names its source (`"data": {"source": "caption-words"}`)
and its labels; `read` finds the images and the truth for those labels in a folder::

    data = read("flickr8k", labels=["dog", "snow"], source="caption-words")
    dev = data.subset("dev")
    image, truth = dev.open(0), dev.targets[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fa_evaluate.data import coco, coco_captions, flickr8k, tinyimagenet
from fa_evaluate.data.base import SPLITS, CaptionedImages, LabelledImages
from feedback_adapter.errors import DataError, did_you_mean

__all__ = [
    "CAPTIONS",
    "SOURCES",
    "SPLITS",
    "CaptionedImages",
    "LabelledImages",
    "read",
    "read_captions",
]

SOURCES: dict[str, Callable[[Path, Sequence[str] | None], LabelledImages]] = {
    "caption-words": flickr8k.read_words,
    "coco-objects": coco.read_objects,
    "coco-caption-words": coco_captions.read_words,
    "tinyimagenet-fine": tinyimagenet.read_fine,
}
"""Source name, as in a checkpoint's config, to its reader."""

CAPTIONS: dict[str, Callable[[Path], CaptionedImages]] = {
    "caption-words": flickr8k.read_captions,
    "coco-caption-words": coco_captions.read_captions,
}
"""The sources whose images have captions."""


def read(directory: str | Path, labels: Sequence[str] | None, source: str) -> LabelledImages:
    """Read labelled images from a folder, in whichever of its source's layouts it is.

    Args:
        directory: The folder; each source's module lists the layouts that it reads.
        labels: The label names, in the order of the targets' columns; `None` for the
            source's own (the most frequent caption words, or the 80 COCO objects).
        source: What the labels mean: a key of `SOURCES`.

    Returns:
        All images of all splits; `subset` selects.

    Raises:
        DataError: Unknown source, no such folder, a layout that is not recognised
            (the message says what was looked for and where), or unknown labels.
    """
    if isinstance(labels, str) or not (
        labels is None
        or (isinstance(labels, Iterable) and all(isinstance(label, str) for label in labels))
    ):
        raise DataError(f"labels={labels!r} isn't a list of names.")
    if str(source) not in SOURCES:
        raise DataError(f"There is no data source {source!r}. {did_you_mean(source, SOURCES)}")
    return SOURCES[source](_folder(directory, source), labels)


def read_captions(directory: str | Path, source: str) -> CaptionedImages:
    """Read images with their captions from a folder.

    Args:
        directory: The folder.
        source: A key of `CAPTIONS`.

    Raises:
        DataError: A source without captions, no such folder, or a layout that is not
            recognised.
    """
    if str(source) not in CAPTIONS:
        raise DataError(
            f"Data of the source {source!r} has no captions; {' and '.join(CAPTIONS)} have."
        )
    return CAPTIONS[source](_folder(directory, source))


def _folder(directory: str | Path, source: str) -> Path:
    try:
        folder = Path(directory).expanduser()
        if folder.is_dir():
            return folder
    except (TypeError, OSError, RuntimeError) as error:
        raise DataError(f"{directory!r} can't be a folder: {error}") from error
    raise DataError(f"There is no folder {str(folder)!r} to read {source!r} data from.")
