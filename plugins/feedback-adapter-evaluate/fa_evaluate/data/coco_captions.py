"""COCO images with their captions (Chen et al., "Microsoft COCO Captions", 2015).

The official layout is read, as users of torchvision's `CocoCaptions` have it:
`captions_NAME.json` in the folder or its `annotations/`, the photos in `NAME/`,
`images/NAME/` or `images/`. Splits are those of `coco_files.split_of`.

With the words as labels this is the data of Feedback-prop (CVPR 2018), section 4.1: the 1,000
most frequent lemmatised words, of which a random half may be known. To train on it as there,
weigh the loss of word j by lambda_j (eq. 6), which `label_weights` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fa_evaluate.data.base import CaptionedImages, LabelledImages
from fa_evaluate.data.coco_files import ID, OfficialPhotos
from fa_evaluate.data.files import entries, read_json
from fa_evaluate.data.words import build_vocabulary, targets_for
from feedback_adapter.errors import DataError

__all__ = ["label_weights", "read_captions", "read_words"]

WORDS = 1000
"""How many words are labels, by default: as in the paper."""


def read_words(directory: Path, labels: Sequence[str] | None) -> LabelledImages:
    """Read images with the words of their captions as labels.

    Args:
        directory: A folder in COCO's layout.
        labels: The words; `None` for the 1,000 that most training images' captions have.

    Raises:
        DataError: The layout isn't there, or simplemma isn't installed.
    """
    data = read_captions(directory)
    train = data.of_split("train") or data.captions
    words = build_vocabulary(train, 1, WORDS) if labels is None else tuple(labels)
    return LabelledImages(
        data.names, data.split, words, targets_for(data.captions, words), data.opener
    )


def read_captions(directory: Path) -> CaptionedImages:
    """Read images and captions.

    Raises:
        DataError: The layout isn't there, or an annotation file lacks a part.
    """
    photos = OfficialPhotos(directory, "captions")
    if not photos.files:
        raise DataError(
            f"No COCO captions in {str(directory)!r}: there is no captions_*.json (official "
            "layout; looked in . and annotations)."
        )
    captions: list[tuple[str, ...]] = []
    for file in photos.files:
        content = read_json(file, dict)
        annotated = list(entries(content, "annotations", file, image_id=ID, caption=str))
        said: dict[int | str, list[str]] = {i: [] for i in photos.add(file, content)}
        for index, (image, caption) in enumerate(annotated):
            if image not in said:
                raise DataError(
                    f"{str(file)!r}: nothing has the image_id {image!r} of annotations[{index}]."
                )
            said[image].append(caption)
        captions.extend(tuple(found) for found in said.values())
    names, split = photos.named()
    return CaptionedImages(tuple(names), tuple(split), tuple(captions), photos.opener())


def label_weights(targets: np.ndarray) -> np.ndarray:
    """lambda_j of Feedback-prop's eq. 6: images without label j over images with it, (labels,).

    Args:
        targets: (N, labels) bool, of training images; a label that none has counts as if
            one had it.
    """
    there = targets.sum(0)
    return (len(targets) - there) / np.maximum(there, 1)
