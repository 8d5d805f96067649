"""`feedback-adapter annotate` and `feedback-adapter playground`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fa_annotate.errors import AnnotateError

__all__ = ["annotate", "playground"]


def annotate(
    folder: Annotated[Path, typer.Argument(help="The folder with the photos.")],
) -> None:
    """Label photos in a browser; every answer improves the predictions that are left."""
    raise AnnotateError(f"{str(folder)!r} can't be opened yet: this command is being built.")


def playground() -> None:
    """Try evidence on example photos, and on your own, in a browser."""
    raise AnnotateError("The playground can't be opened yet: this command is being built.")
