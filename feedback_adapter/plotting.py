"""Pictures of a refinement."""

from __future__ import annotations

from pathlib import Path

from feedback_adapter.refinement import Change, Refinement

__all__ = ["plot_refinement"]

_BEFORE, _AFTER, _KNOWN = "#b8c0cc", "#2f6fb3", "#d9822b"


def plot_refinement(
    result: Refinement, path: Path, *, top: int = 8, image: int = 0, title: str | None = None
) -> Path:
    """Draw a photo and its predictions before and after. See `Refinement.plot`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    changes = result.changes(image, top)
    known = [change for change in changes if change.known][: max(top, 1)]
    moved = [change for change in changes if not change.known]
    moved.sort(key=lambda change: change.before - change.after)
    rows = [*known, *moved]
    photo = result.images is not None
    figure = Figure(figsize=(10 if photo else 6.5, 1.5 + 0.4 * max(len(rows), 6)), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        1, 2 if photo else 1, squeeze=False, width_ratios=[1, 1.25] if photo else None
    )[0]
    if photo:
        assert result.images is not None
        axes[0].imshow(result.images[image].permute(1, 2, 0).clamp(0, 1).numpy())
        axes[0].set_axis_off()
    _bars(axes[-1], rows, several=len(result.outputs_before) > 1)
    figure.suptitle(title or _heading(known), fontsize=12)
    figure.tight_layout()
    figure.savefig(path)
    return path


def _bars(axis: object, rows: list[Change], *, several: bool) -> None:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

    assert isinstance(axis, Axes)
    names = [f"{row.output}/{row.label}" if several else row.label for row in rows]
    for y, row in enumerate(rows):
        axis.barh(y - 0.19, row.before, 0.36, color=_BEFORE)
        axis.barh(y + 0.19, row.after, 0.36, color=_KNOWN if row.known else _AFTER)
        text = f"{row.before:.0%} → {row.after:.0%}"
        axis.text(max(row.before, row.after) + 0.015, y, text, va="center", fontsize=9)
    axis.set_yticks(range(len(rows)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.25)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axis.spines[["top", "right"]].set_visible(False)
    colours = [("before", _BEFORE), ("after", _AFTER), ("after, known", _KNOWN)]
    handles = [Patch(color=colour, label=label) for label, colour in colours]
    axis.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.45, -0.08), ncol=3, frameon=False
    )


def _heading(known: list[Change]) -> str:
    said = [f"{'' if row.after >= 0.5 else 'no '}{row.label}" for row in known]
    return f"Known: {', '.join(said)}" if said else "Nothing known"
