"""Pictures of the examples: a .png file that a script writes is shown on its page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst


def written_pictures(
    _block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]
) -> str:
    """Move the pictures that a block of code has just written into the gallery.

    The words of a file's name, such as `rocket_before_and_after`, become the alternative text.
    """
    folder = Path(block_vars["src_file"]).parent
    shown = []
    for picture in sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime_ns):
        place = next(block_vars["image_path_iterator"])
        shutil.move(picture, place)
        says = f"Picture: {picture.stem.replace('_', ' ')}"
        shown.append(figure_rst([place], gallery_conf["src_dir"], says))
    return "".join(shown)
