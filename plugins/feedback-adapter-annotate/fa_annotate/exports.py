"""Answers in the formats of other programs.

Everything is written beside its place and put there at the end, so that what is at `out` is whole.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from fa_annotate.answers import Answers, ImageAnswers
from fa_annotate.errors import AnnotateError
from feedback_adapter.errors import InputError, did_you_mean
from feedback_adapter.photos import read_photo

__all__ = ["ABSENT", "PRESENT", "TEXT", "Format", "export", "label_config", "photo_file"]

Format: TypeAlias = Literal["coco", "csv", "label-studio", "imagefolder"]
"""A format that `export` writes."""

PRESENT, ABSENT, TEXT = "present", "absent", "text"
"""Controls of a Label Studio project: for labels that are there or not, and for a text."""


def export(
    answers: Answers,
    labels: Sequence[str],
    format: str,
    folder: str | Path,
    out: str | Path,
) -> Path:
    """Write the answers that hold, of every photo that has one.

    Labels that were answered and aren't in `labels` come after these.

    - `"coco"`: one JSON file. A label that is there is an annotation whose region is the whole
      photo, for an answer says nothing of where. One that isn't there is in its image's
      `neg_category_ids`, the field that LVIS has for that. What else was said is in `text`,
      `coarse` and `clicks` of the image, which readers of COCO don't look at.
    - `"csv"`: a row for each photo and a column for each label, in UTF-8: 1, 0, or blank where
      nobody said.
    - `"label-studio"`: one JSON file to import into a project with the labelling configuration that
      `label_config` makes, whose photos are served from local files.
    - `"imagefolder"`: a folder with copies of the photos and a `metadata.jsonl`, as `datasets` of
      Hugging Face loads it. The copies are numbered, because names such as `test-1.jpg` would be
      taken for those of a split; `name` is what a photo was called. `present` and `absent` list
      labels.

    Args:
        answers: What was answered.
        labels: The model's labels.
        format: One of these.
        folder: Where the photos are.
        out: The file to write, which is replaced; or the folder, which must be new or empty.

    Returns:
        `out`.

    Raises:
        AnnotateError: Another format; a photo is gone; or `out` can't be written.
    """
    writers: dict[str, Callable[[_Told, Path], None]] = {
        "coco": _coco,
        "csv": _csv,
        "label-studio": _label_studio,
        "imagefolder": _imagefolder,
    }
    if format not in writers:
        near = did_you_mean(format, get_args(Format))
        raise AnnotateError(f"Answers can't be exported as {format!r}. {near}")
    told, out = _Told(answers, labels, Path(folder)), Path(out)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as near:
            written = Path(near) / "export"
            writers[format](told, written)
            written.replace(out)
    except OSError as error:
        raise AnnotateError(
            f"The answers can't be exported to {str(out)!r}: {error.strerror or error}. Choose a "
            "place where you may write; a folder must be new or empty."
        ) from error
    return out


def label_config(labels: Iterable[str]) -> str:
    """The labelling configuration of a Label Studio project for exported answers.

    It has every label twice, under what is there and under what isn't, and a field for text.

    Example:
        >>> print(label_config(["dog"]))
        <View>
          <Image name="image" value="$image"/>
          <Header value="Present"/>
          <Choices name="present" toName="image" choice="multiple" layout="inline">
            <Choice value="dog"/>
          </Choices>
          <Header value="Absent"/>
          <Choices name="absent" toName="image" choice="multiple" layout="inline">
            <Choice value="dog"/>
          </Choices>
          <Header value="Text"/>
          <TextArea name="text" toName="image" maxSubmissions="1"/>
        </View>
    """
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    groups = "".join(
        f'  <Header value="{name.capitalize()}"/>\n'
        f'  <Choices name="{name}" toName="image" choice="multiple" layout="inline">\n'
        f"{choices}\n  </Choices>\n"
        for name in (PRESENT, ABSENT)
    )
    return (
        f'<View>\n  <Image name="image" value="$image"/>\n{groups}  <Header value="Text"/>\n'
        f'  <TextArea name="{TEXT}" toName="image" maxSubmissions="1"/>\n</View>'
    )


def photo_file(folder: Path, name: str) -> Path:
    """The file of a photo, which must be in the folder; links that lead out aren't followed.

    Raises:
        AnnotateError: It is elsewhere, or there is none.
    """
    folder = folder.resolve()
    try:
        file = (folder / name).resolve()
        found = file.is_relative_to(folder) and file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null character, links in a circle
        found, file = False, folder
    if not found:
        raise AnnotateError(
            f"{name!r:.200} is no photo in {str(folder)!r} (any more): put it back, or export as "
            "CSV or for Label Studio, which needs no photos."
        )
    return file


class _Told:
    """What an export is made of.

    Args:
        answers: What was answered.
        labels: The model's labels.
        folder: Where the photos are.
    """

    def __init__(self, answers: Answers, labels: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self.photos: dict[str, ImageAnswers] = {n: answers.of(n) for n in answers.images()}
        others = {label for said in self.photos.values() for label in said.labels} - {*labels}
        self.labels = [*labels, *sorted(others)]

    def names(self, said: ImageAnswers, value: int) -> list[str]:
        """Labels of which this was said, in the order of `labels`."""
        return [label for label in self.labels if said.labels.get(label) == value]


def _coco(told: _Told, out: Path) -> None:
    numbers = {label: number for number, label in enumerate(told.labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, said) in enumerate(told.photos.items(), 1):
        try:
            width, height = read_photo(photo_file(told.folder, name), repr(name)).size
        except InputError as error:
            raise AnnotateError(str(error)) from error
        images.append({
            "id": number,
            "file_name": name,
            "width": width,
            "height": height,
            "neg_category_ids": [numbers[label] for label in told.names(said, 0)],
            "not_exhaustive_category_ids": [],
            **_rest(said),
        })  # fmt: skip
        annotations += [
            {
                "id": len(annotations) + place,
                "image_id": number,
                "category_id": numbers[label],
                "bbox": [0, 0, width, height],
                "area": width * height,
                "segmentation": [[0, 0, width, 0, width, height, 0, height]],
                "iscrowd": 0,
            }
            for place, label in enumerate(told.names(said, 1), 1)
        ]
    categories = [
        {"id": number, "name": label, "supercategory": ""} for label, number in numbers.items()
    ]
    info = {"description": "Labels of whole photos", "version": "1.0"}
    parts = {"images": images, "annotations": annotations, "categories": categories}
    _write(out, json.dumps({"info": info, "licenses": [], **parts}))


def _rest(said: ImageAnswers) -> dict[str, Any]:
    """What was said beside labels, where something was."""
    rest = {
        "text": said.text,
        "coarse": said.coarse,
        "clicks": [{"name": click.name, "value": click.value} for click in said.clicks],
    }
    return {key: value for key, value in rest.items() if value}


def _csv(told: _Told, out: Path) -> None:
    # Names that aren't text in UTF-8 are written as the bytes that they are on the disk.
    with out.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *told.labels])
        rows.writerows(
            [name, *(said.labels.get(label, "") for label in told.labels)]
            for name, said in told.photos.items()
        )


def _label_studio(told: _Told, out: Path) -> None:
    tasks: list[dict[str, Any]] = []
    for name, said in told.photos.items():
        choices = {PRESENT: told.names(said, 1), ABSENT: told.names(said, 0)}
        result = [
            _item(control, "choices", {"choices": picked})
            for control, picked in choices.items()
            if picked
        ]
        if said.text:
            result.append(_item(TEXT, "textarea", {"text": [said.text]}))
        address = "/data/local-files/?d=" + quote(os.fsencode(name))
        tasks.append({"data": {"image": address}, "annotations": [{"result": result}]})
    _write(out, json.dumps(tasks))


def _item(control: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_name": control, "to_name": "image", "type": kind, "value": value}


def _imagefolder(told: _Told, out: Path) -> None:
    out.mkdir()
    lines: list[str] = []
    for number, (name, said) in enumerate(told.photos.items(), 1):
        file = photo_file(told.folder, name)
        copy = f"{number:06d}{Path(name).suffix.lower()}"
        shutil.copyfile(file, out / copy)
        line = {
            "file_name": copy,
            "name": os.fsencode(name).decode(errors="backslashreplace"),
            "present": told.names(said, 1),
            "absent": told.names(said, 0),
            "text": said.text or "",
        }
        lines.append(json.dumps(line) + "\n")
    _write(out / "metadata.jsonl", "".join(lines))


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="ascii")
