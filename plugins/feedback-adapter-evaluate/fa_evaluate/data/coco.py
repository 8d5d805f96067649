"""COCO 2014 images with the 80 object labels (Lin et al., ECCV 2014).

Two layouts are read:

- packed: `annotations.json` ({name: {"split": "train2014" or "val2014", "labels":
  [index]}}), `classes.json` and `images.zip` (or the photos unpacked in `images/`);
- official, as users of torchvision's `CocoDetection` have it: `instances_NAME.json` in
  the folder or its `annotations/`, the photos in `NAME/`, `images/NAME/` or `images/`.

Splits are those of `fa_evaluate.data.coco_files.split_of`. Categories of equal names are one label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fa_evaluate.data.base import LabelledImages
from fa_evaluate.data.coco_files import ID, OfficialPhotos, split_of
from fa_evaluate.data.files import Opener, entries, field, photo_name, read_json, unique
from fa_evaluate.data.flickr8k import pack_opener
from feedback_adapter.errors import DataError, did_you_mean

__all__ = ["OFFICIAL_NAMES", "read_objects"]

OFFICIAL_NAMES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""The six objects that packed data (darknet's spelling) calls otherwise than COCO does."""


class _Found(NamedTuple):
    """What a layout holds: per image its name, split and label numbers; classes; opener."""

    names: list[str]
    split: list[str]
    classes: list[str]
    present: list[list[int]]
    opener: Opener


_ALIASES = OFFICIAL_NAMES | {official: ours for ours, official in OFFICIAL_NAMES.items()}


def read_objects(directory: Path, labels: Sequence[str] | None) -> LabelledImages:
    """Read images with the objects that are in them as labels.

    Args:
        directory: A folder in either layout.
        labels: Object names, in COCO's or darknet's spelling whatever the layout's is;
            `None` for all, in the data's order.

    Raises:
        DataError: Neither layout is there, or a label is unknown.
    """
    packed = (directory / "annotations.json").exists()
    names, split, classes, present, opener = (_read_pack if packed else _read_official)(directory)
    wanted = classes if labels is None else list(labels)
    columns = [_column(label, classes) for label in wanted]
    targets = np.zeros((len(names), len(classes)), dtype=np.bool_)
    for row, indices in enumerate(present):
        targets[row, indices] = True
    return LabelledImages(tuple(names), tuple(split), tuple(wanted), targets[:, columns], opener)


def _column(label: str, classes: list[str]) -> int:
    for spelling in (label, _ALIASES.get(label)):
        if spelling in classes:
            return classes.index(spelling)
    raise DataError(f"The data has no object {label!r}. {did_you_mean(label, classes)}")


def _read_pack(directory: Path) -> _Found:
    file = directory / "annotations.json"
    found = read_json(file, dict)
    listed = directory / "classes.json"
    labels = [name for (name,) in entries({"it": read_json(listed, list)}, "it", listed, name=str)]
    unique(labels, listed, "class")
    split: list[str] = []
    present: list[list[int]] = []
    for name, entry in found.items():
        split.append(split_of(photo_name(name, file), field(entry, "split", str, file, repr(name))))
        present.append(field(entry, "labels", list, file, repr(name)))
        for label in present[-1]:
            if type(label) is not int or not 0 <= label < len(labels):
                raise DataError(
                    f"{str(file)!r}: {name!r} has the label {label!r}, but the {len(labels)} "
                    "classes of classes.json are numbered from 0 on."
                )
    return _Found(list(found), split, labels, present, pack_opener(directory))


def _read_official(directory: Path) -> _Found:
    classes: list[str] = []
    present: list[list[int]] = []
    photos = OfficialPhotos(directory, "instances")
    if not photos.files:
        raise DataError(
            f"No COCO objects in {str(directory)!r}: there is neither annotations.json (packed "
            "layout) nor instances_*.json (official layout; looked in . and annotations)."
        )
    for file in photos.files:
        content = read_json(file, dict)
        pairs = list(entries(content, "categories", file, id=ID, name=str))
        unique([number for number, _ in pairs], file, "category id")
        categories: dict[int | str, str] = dict(pairs)
        # A parent often has its child's name: one label, since names are what labels are.
        ordered = sorted(categories, key=lambda number: (isinstance(number, str), number))
        own = list(dict.fromkeys(categories[number] for number in ordered))
        if not own:
            raise DataError(f"{str(file)!r}: 'categories' is empty, so there are no labels.")
        if classes and own != classes:
            raise DataError(f"{str(file)!r} has other categories than {photos.files[0].name!r}.")
        classes = own
        annotated = list(entries(content, "annotations", file, image_id=ID, category_id=ID))
        objects: dict[int | str, set[int]] = {i: set() for i in photos.add(file, content)}
        position = {name: index for index, name in enumerate(own)}
        of = {number: position[name] for number, name in categories.items()}
        for index, (image, category) in enumerate(annotated):
            if image not in objects or category not in of:
                what = f"category_id {category!r}" if image in objects else f"image_id {image!r}"
                raise DataError(f"{str(file)!r}: nothing has the {what} of annotations[{index}].")
            objects[image].add(of[category])
        present.extend(sorted(found) for found in objects.values())
    return _Found(*photos.named(), classes, present, photos.opener())
