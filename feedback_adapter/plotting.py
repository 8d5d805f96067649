"""Pictures of a refinement."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from feedback_adapter.changes import Change, moved_right
from feedback_adapter.errors import OptionsError, did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BEFORE, _AFTER, _KNOWN, _RIGHT, _WRONG = "#b8c0cc", "#2f6fb3", "#d9822b", "#3a8f4d", "#c23b3b"
_MARKS = {True: ("✓", _RIGHT), False: ("✗", _WRONG), None: ("", _AFTER)}


def check_ending(path: Path) -> None:
    """Refuse a picture of a format that can't be written."""
    from matplotlib.backend_bases import FigureCanvasBase

    names = FigureCanvasBase.get_supported_filetypes()
    formats = {f".{name}" for name in names} - {".raw", ".rgba"}
    if path.suffix.lower() not in formats:
        has = f"has the ending {path.suffix!r}" if path.suffix else "has no ending"
        raise OptionsError(
            f"The picture {str(path)!r} {has}, which says its format. "
            f"{did_you_mean(path.suffix, formats, show=len(formats))}"
        )


def plot_changes(
    changes: Sequence[Change],
    path: Path,
    *,
    photo: Tensor | None,
    top: int,
    title: str | None,
    several: bool,
    truth: Mapping[str, bool] | None = None,
) -> Path:
    """Draw a photo and its predictions before and after. See `Refinement.plot`.

    The predictions of one image are drawn, of those that are known `top` at most. Labels have
    their output's name with them where there are `several` outputs. With the `truth`, moves are
    marked as right or wrong; see `moved_right`.
    """
    check_ending(path)
    from matplotlib.figure import Figure

    known = [change for change in changes if change.known][: max(top, 1)]
    moved = [change for change in changes if not change.known]
    moved.sort(key=lambda change: change.before - change.after)
    rows = [*known, *moved]
    width = 6.5 if photo is None else 10
    lines = max((name.count("\n") + 1 for name in names_of(rows, several=several)), default=1)
    height = 1.5 + max(0.4, 0.19 * lines) * max(len(rows), 6)
    figure = Figure(figsize=(width, height), dpi=120, layout="tight")
    widths = [1] if photo is None else [1, 1.25]
    axes = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    if photo is not None:
        axes[0].imshow(photo.permute(1, 2, 0).clamp(0, 1).numpy())
        axes[0].set_axis_off()
    draw_bars(axes[-1], rows, several=several, truth=truth)
    figure.suptitle(written(title or heading(known), int(9 * width)), fontsize=12)
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure to a file, or say why that can't be."""
    try:
        with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            figure.savefig(path)
    except OSError as error:
        raise OptionsError(
            f"The picture {str(path)!r} can't be written: {error.strerror or error}. "
            "Name a file in a folder that is there and has room."
        ) from error
    return path


def names_of(rows: Sequence[Change], *, several: bool) -> list[str]:
    """What bars are called in a picture."""
    return [written(f"{row.output}/{row.label}" if several else row.label, 28) for row in rows]


def written(text: str, width: int) -> str:
    """A text for a picture: as it is and not as a formula, in at most ten lines of some letters."""
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, width)]
    return "\n".join(lines[:10] + ["…"] * (len(lines) > 10)).replace("$", r"\$")


def draw_bars(
    axis: Axes, rows: Sequence[Change], *, several: bool, truth: Mapping[str, bool] | None = None
) -> None:
    """Draw a pair of bars for each prediction, before and after; see `plot_changes`."""
    from matplotlib.patches import Patch

    names = names_of(rows, several=several)
    for y, row in enumerate(rows):
        mark, colour = _MARKS[moved_right(row, truth or {})]
        after = _KNOWN if row.known else colour if truth else _AFTER
        axis.barh(y - 0.19, row.before, 0.36, color=_BEFORE)
        axis.barh(y + 0.19, row.after, 0.36, color=after)
        mark = "known absent" if row.present is False else mark
        text = f"{row.before:.0%} → {row.after:.0%} {mark}"
        axis.text(max(row.before, row.after) + 0.015, y, text, va="center", fontsize=9)
    axis.set_yticks(range(len(rows)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.25)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axis.spines[["top", "right"]].set_visible(False)
    colours = [("before", _BEFORE), ("after, known", _KNOWN)]
    if truth is None:
        colours.insert(1, ("after", _AFTER))
    else:
        colours += [("after, right ✓", _RIGHT), ("after, wrong ✗", _WRONG)]
    handles = [Patch(color=colour, label=label) for label, colour in colours]
    axis.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.4, -0.08), ncol=4, frameon=False,
        fontsize=9, columnspacing=1, handlelength=1.2,
    )  # fmt: skip


def heading(known: Sequence[Change]) -> str:
    """What is known, as a picture's heading."""
    said = [f"{'no ' if row.present is False else ''}{row.label}" for row in known]
    return f"Known: {', '.join(said)}" if said else "Nothing known"
