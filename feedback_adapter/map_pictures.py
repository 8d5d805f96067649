"""Pictures of maps: the labels that are seen, over the photo, before and after, and what moved."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.changes import Change
from feedback_adapter.plotting import check_ending, draw_bars, heading, save, written

_OPACITY = 0.6
_WIDTH = 2.8
"""Of a panel, in inches."""


@dataclasses.dataclass(frozen=True)
class MapPicture:
    """One image's map, before and after.

    Args:
        name: Of the output.
        labels: Their names.
        before: (labels, height, width) bool, where each is seen.
        after: The same after refinement.
        known: (height, width) bool, of which pixels a label is known.
    """

    name: str
    labels: tuple[str, ...]
    before: Tensor
    after: Tensor
    known: Tensor


def plot_maps(
    maps: Sequence[MapPicture],
    changes: Sequence[Change],
    path: Path,
    *,
    photo: Tensor | None,
    top: int,
    title: str | None,
) -> Path:
    """Draw a photo with its maps before and after, and what changed. See `Refinement.plot`.

    `changes` are the predictions of the image, those of other outputs than maps included. Of
    each map `top` labels are named at most.
    """
    check_ending(path)
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    names = {map_.name for map_ in maps}
    others = [change for change in changes if change.output not in names]
    shown = [_largest([c for c in changes if c.output == map_.name], top) for map_ in maps]
    columns = 3 + (photo is not None)
    lines = [_in_a_line(some, _WIDTH * columns) for some in shown]
    heights = [
        h
        for some, n in zip(shown, lines, strict=True)
        for h in (2.7, 0.25 * math.ceil(len(some) / n) * _tallest(some))
    ]
    heights += [1 + 0.4 * len(others)] * bool(others)
    figure = Figure(figsize=(_WIDTH * columns, 1 + sum(heights)), dpi=120, layout="constrained")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for row, (map_, some, in_a_line) in enumerate(zip(maps, shown, lines, strict=True)):
        for column, (what, picture) in enumerate(_panels(map_, photo)):
            axis = figure.add_subplot(grid[2 * row, column])
            axis.imshow(picture.permute(1, 2, 0).numpy(), extent=_extent(map_.before))
            what_of = what if len(maps) == 1 else f"{map_.name}: {what}"
            axis.set_title(written(what_of, 40), fontsize=10)
            axis.set_axis_off()
            if what == "after":
                _mark(axis, map_.known)
        axis = figure.add_subplot(grid[2 * row + 1, :])
        axis.set_axis_off()
        colours = [_colour(map_.labels.index(change.label)) for change in some]
        handles = [Patch(color=c, label=_legend(s)) for c, s in zip(colours, some, strict=True)]
        axis.legend(handles=handles, loc="center", ncol=in_a_line, frameon=False, fontsize=9)
    if others:
        draw_bars(figure.add_subplot(grid[-1, :]), others, several=True)
    known = [change for change in changes if change.known]
    figure.suptitle(written(title or heading(known), int(9 * _WIDTH * columns)), fontsize=12)
    return save(figure, path)


def _panels(map_: MapPicture, photo: Tensor | None) -> list[tuple[str, Tensor]]:
    """Pictures (3, height, width) in [0, 1] with their titles."""
    colours = _sized(photo, map_.before)
    grey = colours.mean(0, keepdim=True).expand_as(colours) * 0.7 + 0.3
    moved = (map_.before ^ map_.after).any(0)
    panels = [
        ("before", _overlaid(grey, map_.before)),
        ("after", _overlaid(grey, map_.after)),
        (f"changed: {float(moved.float().mean()):.1%}", _overlaid(grey, map_.after & moved)),
    ]
    return panels if photo is None else [("photo", colours), *panels]


def _sized(photo: Tensor | None, seen: Tensor) -> Tensor:
    """The photo, as large as the map at least; a grey one where there is none."""
    size = tuple(seen.shape[-2:])
    if photo is None:
        return torch.full((3, *size), 0.8)
    if photo.shape[-2] >= size[0] and photo.shape[-1] >= size[1]:
        return photo.clamp(0, 1)
    return F.interpolate(photo[None], size=size, mode="bilinear")[0].clamp(0, 1)


def _overlaid(photo: Tensor, seen: Tensor) -> Tensor:
    """A photo (3, height, width) with a colour where a label is seen; several are mixed."""
    colours = torch.tensor([_colour(label) for label in range(len(seen))])
    layers = seen.float()
    mixed = torch.einsum("lhw,lc->chw", layers, colours) / layers.sum(0).clamp(min=1)
    some = seen.any(0)[None].float()
    both = torch.cat([mixed, some])[None]
    *mixed, some = F.interpolate(both, size=tuple(photo.shape[-2:]), mode="nearest")[0]
    return torch.lerp(photo, torch.stack(mixed), _OPACITY * some)


def _extent(seen: Tensor) -> tuple[float, float, float, float]:
    """So that points have the coordinates of the map's pixels."""
    height, width = seen.shape[-2:]
    return -0.5, width - 0.5, height - 0.5, -0.5


def _mark(axis: object, known: Tensor) -> None:
    """A cross at each known pixel, unless these are an area."""
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    places = known.nonzero()
    if 0 < len(places) <= 50:
        y, x = places.T.tolist()
        axis.scatter(x, y, marker="x", s=45, color="white", linewidths=3)
        axis.scatter(x, y, marker="x", s=40, color="black", linewidths=1.5)


def _largest(changes: Sequence[Change], top: int) -> list[Change]:
    """The known labels, and those that take most room before or after."""
    chosen = sorted(changes, key=lambda c: (not c.known, -max(c.before, c.after)))
    return [c for c in chosen if c.known or max(c.before, c.after) > 0][: max(top, 1)]


def _in_a_line(some: Sequence[Change], width: float) -> int:
    """How many entries of a legend stand side by side in so many inches, from 1 to 4."""
    longest = max((len(line) for c in some for line in _legend(c).splitlines()), default=0)
    return min(max(int(width / (0.075 * longest + 0.7)), 1), 4)


def _legend(change: Change) -> str:
    text = f"{change.label}: {change.before:.1%} → {change.after:.1%}"
    return written(f"{text} ({change.said})" if change.said else text, 60)


def _tallest(some: Sequence[Change]) -> int:
    return max((_legend(change).count("\n") + 1 for change in some), default=1)


def _colour(label: int) -> tuple[float, float, float]:
    """A colour for each label, far from those of its neighbours."""
    hue = (0.08 + label * 0.381966) % 1  # steps of the golden angle
    return colorsys.hsv_to_rgb(hue, 0.85 if label % 2 == 0 else 0.6, 0.95 if label % 3 else 0.75)
