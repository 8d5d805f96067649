"""Marks on a picture as pixels of a map.

Marks have the coordinates of a frame (the photo, say), in which the pixel (x, y) has its centre
at (x, y), from (0, 0) at the top left. The map covers the same area, with pixels of another size.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError

Size = tuple[int, int]
"""Height and width."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A click (one point) or a scribble (several), and what is known of its pixels.

    Args:
        points: (x, y) of each.
        label: Number of the label.
        value: How likely it is there, in [0, 1].
        radius: Pixels so near to the line belong to it, in pixels of the frame.
    """

    points: tuple[tuple[float, float], ...]
    label: int
    value: float = 1.0
    radius: float = 0.0


@dataclasses.dataclass(frozen=True)
class Box:
    """The pixels from one corner to the other, both included."""

    points: tuple[tuple[float, float], tuple[float, float]]
    label: int
    value: float = 1.0


Mark = Line | Box


def paint(
    marks: Sequence[Mark],
    mask: Tensor | None,
    frame: Size | None,
    size: Size,
    labels: int,
    *,
    one_holds: bool,
) -> Tensor:
    """What is known of each pixel of one image's map, (labels, height * width), NaN for nothing.

    Later marks cover earlier ones, and all cover the mask.

    Args:
        marks: In order.
        mask: The number of each pixel's label (any height, any width) int64, -1 where it isn't
            known; or (labels, any height, any width), values in [0, 1] or NaN.
        frame: Height and width of what the marks' coordinates are of; `None` for the map.
        size: Height and width of the map.
        labels: How many there are.
        one_holds: Whether a pixel has exactly one label.

    Raises:
        EvidenceError: A mark is outside of the frame.
    """
    frame = frame or size
    known = torch.full((labels, size[0] * size[1]), torch.nan, device="cpu")
    if mask is not None and mask.ndim == 3:
        known = fitted(mask, size).flatten(1).to(known).clone()
    elif mask is not None:
        numbers = fitted(mask, size).flatten()
        (pixels,) = (numbers >= 0).nonzero(as_tuple=True)
        known[numbers[pixels], pixels] = 1.0
    for mark in marks if math.prod(size) else ():
        pixels = pixels_of(mark, frame, size)
        if one_holds and mark.value > 0:  # at most one label can be there
            said = known[:, pixels].nan_to_num(0)
            others = said.sum(0) - said[mark.label]
            known[:, pixels[others + mark.value > 1 + 1e-6]] = torch.nan
        known[mark.label, pixels] = mark.value
    return known


def fitted(mask: Tensor, size: Size) -> Tensor:
    """A mask (..., any height, any width) at another size: the value at each pixel's centre."""
    rows, columns = (
        _centres(n, m).round().long() for n, m in zip(size, mask.shape[-2:], strict=True)
    )
    return mask[..., rows, :][..., columns]


def pixels_of(mark: Mark, frame: Size, size: Size) -> Tensor:
    """The numbers (y * width + x) of a mark's pixels in a map, (pixels,) int64, at least one."""
    for x, y in mark.points:
        if not (0 <= x <= frame[1] - 1 and 0 <= y <= frame[0] - 1):
            raise EvidenceError(
                f"The point (x={x:g}, y={y:g}) is outside of the picture, which is {frame[1]} "
                f"wide and {frame[0]} high: x must be from 0 to {frame[1] - 1} and y from 0 to "
                f"{frame[0] - 1}. If the points are of another picture, say so with "
                "size=(height, width)."
            )
    centres = _centres(size[0], frame[0]), _centres(size[1], frame[1])
    if isinstance(mark, Box):
        return _inside(mark, centres, frame, size)
    found = [_at(torch.tensor(_along(mark.points, frame, size), device="cpu"), frame, size)]
    if mark.radius > 0:
        ends = zip(mark.points, mark.points[1:] or mark.points, strict=False)
        found += [_near(start, end, mark.radius, centres, size) for start, end in ends]
    return torch.cat(found).unique()


def _centres(count: int, frame: int) -> Tensor:
    """The coordinate in the frame of each pixel's centre along one side, float64."""
    places = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) * frame / max(
        count, 1
    ) - 0.5
    return places.clamp(0, max(frame - 1, 0))


def _at(points: Tensor, frame: Size, size: Size) -> Tensor:
    """The pixels in which points (n, 2) lie."""
    x = ((points[:, 0] + 0.5) * size[1] / frame[1]).floor().long().clamp(0, size[1] - 1)
    y = ((points[:, 1] + 0.5) * size[0] / frame[0]).floor().long().clamp(0, size[0] - 1)
    return y * size[1] + x


def _along(
    points: Sequence[tuple[float, float]], frame: Size, size: Size
) -> list[tuple[float, float]]:
    """Points along a line, so close that no pixel of the frame or of the map is left out."""
    step = 0.5 * min(1.0, frame[0] / size[0], frame[1] / size[1])
    found = [points[0]]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        count = max(1, math.ceil(max(abs(x1 - x0), abs(y1 - y0)) / step))
        found += [
            (x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count) for i in range(1, count + 1)
        ]
    return found


def _near(
    start: tuple[float, float],
    end: tuple[float, float],
    radius: float,
    centres: tuple[Tensor, Tensor],
    size: Size,
) -> Tensor:
    """Pixels whose centres are within the radius of a straight line."""
    rows, columns = (
        ((c >= min(a, b) - radius) & (c <= max(a, b) + radius)).nonzero()[:, 0]
        for c, a, b in zip(centres, reversed(start), reversed(end), strict=True)
    )
    y, x = centres[0][rows][:, None] - start[1], centres[1][columns][None] - start[0]
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = ((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-12)).clamp(0, 1)
    near = (x - share * dx).square() + (y - share * dy).square() <= radius * radius + 1e-9
    places = near.nonzero()
    return rows[places[:, 0]] * size[1] + columns[places[:, 1]]


def _inside(box: Box, centres: tuple[Tensor, Tensor], frame: Size, size: Size) -> Tensor:
    """Pixels whose centres are in a box, or else the one that its centre is in."""
    (x0, y0), (x1, y1) = box.points
    sides = ((min(y0, y1), max(y0, y1)), (min(x0, x1), max(x0, x1)))
    rows, columns = (
        ((c >= low - 0.5) & (c <= high + 0.5)).nonzero()[:, 0]
        for c, (low, high) in zip(centres, sides, strict=True)
    )
    inside = (rows[:, None] * size[1] + columns[None]).flatten()
    if len(inside):
        return inside
    return _at(torch.tensor([((x0 + x1) / 2, (y0 + y1) / 2)], device="cpu"), frame, size)
