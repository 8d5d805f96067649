"""The picture of an explanation: what each piece of evidence did, and where the network looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from feedback_adapter.plotting import check_ending, save, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from feedback_adapter.explain.explanation import Explanation

_UP, _DOWN = "#2f6fb3", "#d9662b"


def draw(why: Explanation, path: Path, title: str | None) -> Path:
    """Draw an explanation. See `Explanation.plot`."""
    check_ending(path)
    from matplotlib.figure import Figure

    maps = why.maps
    heats = {
        "looked here before": maps and maps.before,
        "looks here, refined": maps and maps.refined,
        "where the change came from": maps and maps.change,
    }
    seen = {name: values for name, values in heats.items() if values is not None}
    count = 1 + (len(seen) or why.photo is not None)
    names = [written(row.evidence, 30) for row in why.contributions]
    lines = max((name.count("\n") + 1 for name in names), default=1)
    height = max(1.6 + max(0.32, 0.19 * lines) * len(names), 3.4)
    width = 5.2 + 2.9 * (count - 1)
    figure = Figure(figsize=(width, height), dpi=120, layout="tight")
    every = figure.subplots(1, count, squeeze=False, width_ratios=[1.45, *[1.0] * (count - 1)])[0]
    _bars(every[0], why, names)
    for axis, (name, values) in zip(every[1:], seen.items(), strict=False):
        _heat(axis, name, values, why.photo)
    if not seen and why.photo is not None:
        every[1].imshow(_seen(why.photo))
        every[1].set_axis_off()
    figure.suptitle(written(title or why.heading, int(9 * width)), fontsize=12)
    return save(figure, path)


def _bars(axis: Axes, why: Explanation, names: list[str]) -> None:
    """A bar for each piece of evidence, with its error."""
    rows = why.contributions
    places = range(len(rows))
    values = [row.log_odds for row in rows]
    colours = [_UP if value >= 0 else _DOWN for value in values]
    errors = None if why.exact else [row.error for row in rows]
    axis.barh(places, values, 0.6, color=colours, xerr=errors)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    axis.margins(x=0.25)
    for place, value in zip(places, values, strict=True):
        axis.annotate(
            f"{value:+.2f}", (value, place), (4 if value >= 0 else -4, 0), va="center",
            textcoords="offset points", ha="left" if value >= 0 else "right", fontsize=9,
        )  # fmt: skip
    axis.set_xlabel("part of the move, in nats of log-odds")
    axis.spines[["top", "right"]].set_visible(False)


def _heat(axis: Axes, name: str, values: Tensor, photo: Tensor | None) -> None:
    """A map over a grey photo: blue speaks for the label, orange against it."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    height, width = values.shape if photo is None else photo.shape[-2:]
    extent = (0.0, float(width), float(height), 0.0)
    if photo is not None:
        axis.imshow(_seen(photo).mean(-1), cmap="gray", vmin=0, vmax=1, extent=extent)
    most = max(float(values.abs().max()), 1e-12)
    colours = [(*to_rgb(_DOWN), 0.85), (1, 1, 1, 0.0), (*to_rgb(_UP), 0.85)]
    axis.imshow(
        values.numpy(), cmap=LinearSegmentedColormap.from_list("against to for", colours),
        vmin=-most, vmax=most, extent=extent, interpolation="bilinear",
    )  # fmt: skip
    axis.set_title(name, fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel("blue: for it, orange: against it", fontsize=8)


def _seen(photo: Tensor):
    return photo.permute(1, 2, 0).clamp(0, 1).cpu().numpy()
