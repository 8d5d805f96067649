"""The playground's photos, which come with scikit-image; its documentation names their licences."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["examples"]

_FILES = {
    "cup of coffee": "coffee.png",
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "photographer": "camera.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}


def examples() -> dict[str, Path]:
    """Files by name; none where scikit-image isn't installed."""
    spec = importlib.util.find_spec("skimage")
    places = spec.submodule_search_locations if spec else None
    if not places:
        return {}
    files = {name: Path(places[0]) / "data" / file for name, file in _FILES.items()}
    return {name: path for name, path in files.items() if path.is_file()}
