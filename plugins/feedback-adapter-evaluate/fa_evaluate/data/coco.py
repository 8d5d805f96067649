"""COCO 2014 images with the 80 object labels (Lin et al., ECCV 2014).

Two layouts are read:

- packed: `annotations.json` ({name: {"split": "train2014" or "val2014", "labels":
  [index]}}), `classes.json` and `images.zip` (or the photos unpacked in `images/`);
- official, as users of torchvision's `CocoDetection` have it: `instances_NAME.json` in
  the folder or its `annotations/`, the photos in `NAME/`, `images/NAME/` or `images/`.

COCO's own validation images are the test split, as in Feedback-prop; a tenth of the
training images, chosen by a hash of their name, is the dev split. So an image is in the
same split wherever it is read, and however many others are there.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fa_evaluate.data.base import LabelledImages, Opener, folder_opener, read_json
from fa_evaluate.data.flickr8k import pack_opener
from feedback_adapter.errors import DataError, did_you_mean

__all__ = ["OFFICIAL_NAMES", "image_folder", "read_objects", "split_of"]

OFFICIAL_NAMES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""The six objects that packed data (darknet's spelling) calls otherwise than COCO does."""

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
    if (directory / "annotations.json").is_file():
        names, split, classes, present, opener = _read_pack(directory)
    else:
        names, split, classes, present, opener = _read_official(directory)
    wanted = classes if labels is None else list(labels)
    columns = [_column(label, classes) for label in wanted]
    targets = np.zeros((len(names), len(classes)), dtype=np.bool_)
    for row, indices in enumerate(present):
        targets[row, indices] = True
    return LabelledImages(tuple(names), tuple(split), tuple(wanted), targets[:, columns], opener)


def split_of(name: str, official: str) -> str:
    """The split of an image: test for COCO's val, dev for a tenth of its train.

    Args:
        name: The file name.
        official: COCO's split, such as "train2014" or "val2014".
    """
    if official.startswith("val"):
        return "test"
    return "dev" if zlib.crc32(name.encode()) % 10 == 0 else "train"


def _column(label: str, classes: list[str]) -> int:
    for spelling in (label, _ALIASES.get(label)):
        if spelling in classes:
            return classes.index(spelling)
    raise DataError(f"The data has no object {label!r}. {did_you_mean(label, classes)}")


def _read_pack(directory: Path) -> tuple[list[str], list[str], list[str], list[list[int]], Opener]:
    entries = read_json(directory / "annotations.json", dict)
    classes = read_json(directory / "classes.json", list)
    try:
        names = list(entries)
        split = [split_of(name, entry["split"]) for name, entry in entries.items()]
        present = [list(entry["labels"]) for entry in entries.values()]
        return names, split, [str(c["name"]) for c in classes], present, pack_opener(directory)
    except (KeyError, TypeError) as error:
        raise DataError(
            f'annotations.json in {str(directory)!r} must map each image name to {{"split": '
            f'..., "labels": [...]}}, and classes.json list {{"name": ...}}; an entry has no '
            f"{error}."
        ) from error


def _read_official(
    directory: Path,
) -> tuple[list[str], list[str], list[str], list[list[int]], Opener]:
    files = sorted(
        [*directory.glob("instances_*.json"), *directory.glob("annotations/instances_*.json")]
    )
    if not files:
        raise DataError(
            f"No COCO objects in {str(directory)!r}: there is neither annotations.json (packed "
            "layout) nor instances_*.json (official layout; looked in . and annotations)."
        )
    names: list[str] = []
    split: list[str] = []
    present: list[list[int]] = []
    classes: list[str] = []
    folders: dict[str, Path] = {}
    for file in files:
        content = read_json(file, dict)
        categories = sorted(content["categories"], key=lambda c: c["id"])
        position = {c["id"]: index for index, c in enumerate(categories)}
        own = [str(c["name"]) for c in categories]
        if classes and own != classes:
            raise DataError(f"{str(file)!r} has other categories than {files[0].name!r}.")
        classes = own
        objects: dict[int, set[int]] = {}
        for annotation in content["annotations"]:
            found = objects.setdefault(annotation["image_id"], set())
            found.add(position[annotation["category_id"]])
        official = file.stem.removeprefix("instances_")
        images = content["images"]
        folder = image_folder(directory, official, images)
        for image in images:
            name = str(image["file_name"])
            names.append(name)
            split.append(split_of(name, official))
            present.append(sorted(objects.get(image["id"], ())))
            folders[name] = folder

    def open_image(name: str) -> Image.Image:
        return folder_opener(folders[name])(name)

    return names, split, classes, present, open_image


def image_folder(
    directory: Path, official: str, images: list[dict[str, Any]], kind: str = "instances"
) -> Path:
    """Where the photos of an official split are.

    Args:
        directory: The folder that has them somewhere.
        official: COCO's name of the split, such as "val2014".
        images: The split's entries, of which the first is looked for.
        kind: What the annotation file's name begins with.

    Raises:
        DataError: They are nowhere.
    """
    candidates = (official, f"images/{official}", "images", ".")
    for candidate in candidates:
        if images and (directory / candidate / str(images[0]["file_name"])).is_file():
            return directory / candidate
    first = images[0]["file_name"] if images else "any image"
    raise DataError(
        f"The images of {kind}_{official}.json aren't in {str(directory)!r}: looked for "
        f"{first!r} in {', '.join(candidates)}."
    )
