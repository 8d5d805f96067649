"""`--click x,y=label`: a pixel of the photo whose label is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feedback_adapter.errors import InputError, OptionsError

if TYPE_CHECKING:
    from feedback_adapter.evidence.pixels import Pixels


def clicked(clicks: Sequence[str], radius: float | None, photos: Sequence[Path]) -> Pixels | None:
    """What clicks on photos say, which a `Transform` shows the model as a whole.

    A click is `x,y=label`, in pixels of the photo as a viewer shows it, and the same on all of
    the photos; nothing is known where there is none.
    """
    from feedback_adapter.evidence.pixels import Pixels, parse_click
    from feedback_adapter.photos import as_rgb

    if not clicks:
        if radius is not None:
            raise OptionsError("--radius is how far around a --click its label is known: add one.")
        return None
    sizes: list[tuple[int, int] | None] = []
    for path in photos:
        try:
            width, height = as_rgb(path).size
            sizes.append((height, width))
        except InputError:  # it is said when it is this photo's turn; others are done
            sizes.append(None)
    return Pixels(clicks=[parse_click(text) for text in clicks], radius=radius or 0, size=sizes)
