"""Pixels as evidence: the labels of some pixels of a map are known."""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence, Unbound
from feedback_adapter.evidence.certain import consistent
from feedback_adapter.evidence.given import as_tensor, output_of, per_image, repeated, short, unit
from feedback_adapter.evidence.known_pixels import ImageMarks, KnownPixels
from feedback_adapter.evidence.painting import Box, Line, Mark
from feedback_adapter.names import place
from feedback_adapter.options import is_number
from feedback_adapter.outputs import Output
from feedback_adapter.rows import indices

_GIVEN = {
    "mask": "Masks",
    "boxes": "Boxes",
    "scribbles": "Scribbles",
    "clicks": "Clicks",
    "size": "Sizes",
}


class Pixels(Unbound):
    """The labels of some pixels are known, in outputs that are maps (`Output(kind="map")`).

    Give each argument for all images of the batch, or a list with one for each image (`None`
    where nothing is known). Coordinates are in pixels of the map, or of the picture whose `size`
    is given; (0, 0) is the centre of the top left one. A value is 1 (the label is there), 0 (it
    isn't), or a soft target in between. Clicks cover scribbles, these cover boxes, and all cover
    the mask.

    Args:
        mask: The number of each pixel's label, (height, width), or (batch, height, width) for
            one per image; it is brought to the map's size. Where a pixel can have any number of
            labels: values in [0, 1], (batch, labels, height, width), or (height, width) where
            there is one label only.
        clicks: `(x, y, label)` or `(x, y, label, value)` each.
        boxes: `(x0, y0, x1, y1, label)`, or with a value: every pixel from one corner to the
            other.
        scribbles: `([(x, y), ...], label)`, or with a value: lines from point to point.
        radius: Pixels so near to a click or a scribble are known, too; at least 0.
        confidence: How far to trust all this, in [0, 1]: the loss is multiplied by it, and the
            clamp moves that share of the way.
        ignore: What the mask says of pixels of which nothing is known; NaN means that, too.
        size: `(height, width)` of the picture that clicks, boxes and scribbles are made on.
        output: Which output; needed only where several are maps.

    The loss of a pixel is that of `Labels`, in nats, and summed over the known pixels.

    Raises:
        EvidenceError: Nothing of this form, or a value out of range; when bound: an unknown
            label, a wrong number of images, no output that is a map, or a contradiction; when
            the map's size is seen: a mark outside of the picture.

    Example:
        >>> Pixels(clicks=[(12, 9, "car"), (3, 4, "road")])
        Pixels(clicks=[(12, 9, 'car'), (3, 4, 'road')])
    """

    said = "clicks"

    def __init__(
        self,
        mask: Any = None,
        *,
        clicks: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        scribbles: Sequence[Any] | None = None,
        radius: float = 0.0,
        confidence: float = 1.0,
        ignore: float = 255,
        size: Sequence[Any] | None = None,
        output: str | None = None,
    ) -> None:
        if mask is None and clicks is None and boxes is None and scribbles is None:
            raise EvidenceError(
                "Pixels needs a mask, clicks, boxes or scribbles, such as "
                "Pixels(clicks=[(12, 9, 'car')])."
            )
        self.mask = _masks(mask)
        self.boxes = _marks(boxes, lambda m: _is_mark(m, 4), "boxes", "(x0, y0, x1, y1, label)")
        self.scribbles = _marks(scribbles, _is_scribble, "scribbles", "([(x, y), ...], label)")
        self.clicks = _marks(clicks, lambda m: _is_mark(m, 2), "clicks", "(x, y, label)")
        self.size = _given(size, _is_size, "size", "(height, width), whole numbers from 1 on")
        if not (is_number(radius) and radius >= 0):
            raise EvidenceError(f"radius={short(radius)} must be a number of pixels from 0 on.")
        if not isinstance(ignore, numbers.Real):
            raise EvidenceError(f"ignore={short(ignore)} must be a number.")
        self.radius, self.ignore, self.output = float(radius), float(ignore), output
        self.confidence = unit(confidence, "confidence")

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Look the labels up and check the marks. See `Evidence.bind`."""
        maps = [name for name, spec in specs.items() if spec.kind == "map"]
        name = output_of(specs, self.output, maps, "Pixels", "a map (kind='map')")
        spec = specs[name]
        given = {what: getattr(self, what) for what in _GIVEN}
        each = {
            what: repeated(value, batch, _GIVEN[what])
            for what, value in given.items()
            if isinstance(value, _Each)
        }
        images: list[ImageMarks] = []
        for image in range(batch):
            one = {**given, **{what: values[image] for what, values in each.items()}}
            marks = self._marks(one, spec, image)
            mask = None if one["mask"] is None else self._mask(one["mask"], spec, image)
            images.append(ImageMarks(marks, mask, one["size"] and tuple(one["size"])))
        known = KnownPixels(name, spec, images, self.confidence)
        consistent(known.certain(), specs)
        return known

    def take(self, rows: Tensor) -> Self:
        """See `Evidence.take`."""
        taken = copy.copy(self)
        for what in _GIVEN:
            value = getattr(self, what)
            if isinstance(value, _Each):
                chosen = indices(rows, len(value)).tolist()
                setattr(taken, what, _Each(value[row] for row in chosen))
        return taken

    def items(self, specs: Mapping[str, Output]) -> list[str]:
        """All that is said of the image is one fact. See `Evidence.items`."""
        return Evidence.items(self, specs)

    def _marks(self, given: Mapping[str, Any], spec: Output, image: int) -> tuple[Mark, ...]:
        """What is marked on one image, the mark that covers others last."""
        marks: list[Mark] = []
        for item in given["boxes"] or ():
            x0, y0, x1, y1, *said = item
            marks.append(Box(((x0, y0), (x1, y1)), *_said(said, spec, f"box {item}", image)))
        for points, *said in given["scribbles"] or ():
            line = tuple((float(x), float(y)) for x, y in points)
            what = _said(said, spec, f"scribble from {line[0]}", image)
            marks.append(Line(line, *what, radius=self.radius))
        clicks = [
            Line(((x, y),), *_said(said, spec, f"click (x={x}, y={y})", image), radius=self.radius)
            for x, y, *said in given["clicks"] or ()
        ]
        _agree(clicks, spec, image)
        return (*marks, *clicks)

    def _mask(self, mask: Tensor, spec: Output, image: int) -> Tensor:
        """A mask as `painting.paint` takes it."""
        count = len(spec.labels)
        nothing = (mask == self.ignore) | mask.isnan()
        several = mask.ndim == 3 and not spec.one_holds and mask.shape[0] == count
        if several or (mask.ndim == 2 and count == 1):
            values = mask.reshape(count, *mask.shape[-2:])
            _check_mask(mask, nothing | ((mask >= 0) & (mask <= 1)), "a value from 0 to 1", image)
            return torch.where(nothing.reshape(values.shape), torch.nan, values)
        if mask.ndim != 2:
            wanted = "(height, width)" if spec.one_holds else f"({count}, height, width)"
            raise EvidenceError(
                f"The mask of image {image} is {tuple(mask.shape)}, but {count} labels need "
                f"{wanted} for each image."
            )
        whole = (mask >= 0) & (mask < count) & (mask == mask.floor())
        possible = f"the number of a label, from 0 to {count - 1}, or ignore={self.ignore:g}"
        _check_mask(mask, nothing | whole, possible, image)
        return torch.where(nothing, -1, mask.nan_to_num(0)).long()

    def __repr__(self) -> str:
        said = [f"{n}={short(getattr(self, n))}" for n in ("clicks", "scribbles", "boxes", "size")
                if getattr(self, n) is not None]  # fmt: skip
        if self.mask is not None:
            said.insert(0, f"mask of {len(self.mask)} images" if isinstance(self.mask, _Each)
                        else f"mask {tuple(self.mask.shape)}")  # fmt: skip
        said += [] if not self.radius else [f"radius={self.radius:g}"]
        said += [] if self.confidence == 1 else [f"confidence={self.confidence:g}"]
        return f"Pixels({', '.join(said)})"


def parse_click(text: str) -> tuple[float, float, str, float]:
    """A click of the command line: `x,y=label`, or `x,y=-label` for what isn't there.

    Raises:
        EvidenceError: Not of that form.
    """
    where, equals, label = text.partition("=")
    try:
        x, y = (float(part) for part in where.split(","))
    except ValueError:
        x = y = math.nan
    name = label.strip().removeprefix("-")
    if not (equals and name and math.isfinite(x) and math.isfinite(y)):
        raise EvidenceError(
            f"The click {text!r} can't be read: write x,y=label, such as 120,90=car, or "
            "120,90=-car for what isn't there."
        )
    return x, y, name, 0.0 if label.strip().startswith("-") else 1.0


def parse_pixels(text: str) -> Pixels:
    """Clicks of the command line, in pixels of the map: `x,y=label`, several joined by `;`."""
    return Pixels(clicks=[parse_click(part) for part in text.split(";") if part.strip()])


class _Each(list[Any]):
    """One thing for each image."""


def _given(value: Any, fits: Callable[[Any], bool], what: str, possible: str) -> Any:
    """What was given for all images, or `_Each`."""
    if value is None:
        return None
    checked = per_image(value, f"The {what}", possible, fits)
    return checked if fits(checked) else _Each(checked)


def _marks(value: Any, fits: Callable[[Any], bool], what: str, form: str) -> Any:
    """Marks for all images, or `_Each`."""
    return _given(value, lambda v: _is_list(v, fits), f"list of {what}", f"a list of {form}")


def _masks(value: Any) -> Any:
    """A mask for all images (height, width), or `_Each`."""
    if value is None:
        return None
    several = isinstance(value, (list, tuple))
    if several and any(item is None or hasattr(item, "shape") for item in value):
        return _Each(None if item is None else _tensor(item) for item in value)
    mask = _tensor(value)
    return mask if mask.ndim == 2 else _Each(mask)


def _tensor(value: Any) -> Tensor:
    mask = as_tensor(value, "mask={}").to(torch.float32)
    if mask.ndim < 2 or 0 in mask.shape[-2:]:
        raise EvidenceError(
            f"mask is {tuple(mask.shape)}: it must be (height, width), or have one of these per "
            "image."
        )
    return mask


def _check_mask(mask: Tensor, fine: Tensor, possible: str, image: int) -> None:
    for place_of in (~fine).nonzero()[:1]:
        y, x = place_of[-2:].tolist()
        raise EvidenceError(
            f"The mask of image {image} is {float(mask[tuple(place_of)]):g} at (x={x}, y={y}): it "
            f"must be {possible}."
        )


def _said(said: Sequence[Any], spec: Output, what: str, image: int) -> tuple[int, float]:
    """The number of a mark's label, and its value."""
    value = said[1] if len(said) > 1 else 1.0
    return place(said[0], spec.labels), unit(value, f"The value of {what} of image {image}")


def _agree(clicks: Sequence[Line], spec: Output, image: int) -> None:
    """Refuse clicks at one place that can't all be right."""
    at: dict[Any, dict[int, float]] = {}
    for click in clicks:
        said = at.setdefault(click.points, {})
        differs = said.setdefault(click.label, click.value) != click.value
        if differs or (spec.one_holds and sum(said.values()) > 1 + 1e-6):
            names = [spec.labels[label] for label in said]
            (x, y), *_ = click.points
            raise EvidenceError(
                f"Contradiction: the clicks at (x={x:g}, y={y:g}) of image {image} say of {names} "
                "what can't be at one pixel."
            )


def _is_list(value: Any, fits: Callable[[Any], bool], count: int | None = None) -> bool:
    """Whether it is a list or a tuple (of so many things) of which each fits."""
    several = isinstance(value, (list, tuple)) and count in (None, len(value))
    return several and all(map(fits, value))


def _is_mark(value: Any, numbers_first: int) -> bool:
    """So many numbers, a label and maybe a value."""
    if not isinstance(value, (list, tuple)) or len(value) - numbers_first not in (1, 2):
        return False
    return all(map(is_number, value[:numbers_first])) and isinstance(value[numbers_first], str)


def _is_scribble(value: Any) -> bool:
    """Points, a label and maybe a value."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    points, *said = value
    return _is_mark(said, 0) and _is_list(points, _is_point) and len(points) > 0


def _is_point(value: Any) -> bool:
    return _is_list(value, is_number, 2)


def _is_size(value: Any) -> bool:
    return _is_list(value, lambda n: isinstance(n, int) and n > 0, 2)
