"""Render the models of two Debian packages: `python render.py --out objects.npz`.

Fetches `flightgear-data-ai` and `flightgear-data-models` (GPL-2+) with `apt-get download`,
unpacks them into a cache without installing, and renders views with masks: half a CPU
second per hundred at 128 pixels.
"""

import argparse
import subprocess
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import ac3d
import numpy as np
from catalogue import CATEGORIES, Entry, entries
from PIL import Image
from raster import Textures, render, turn

CACHE = Path.home() / ".cache" / "feedback_adapter" / "debian"
PACKAGES = ("flightgear-data-ai", "flightgear-data-models")
ROOT = "usr/share/games/flightgear"
TEXTURE_SIDE = 256
SMALLEST = 0.06  # views that cover less of the canvas (a wing from its tip) are dropped
VIEWS_PER_LIVERY = 8


def fetch(cache: Path = CACHE) -> Path:
    """The unpacked folder of the two packages; fetched once (431 MB)."""
    cache.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not any(cache.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=cache, check=True)
        if not (cache / "unpacked" / "usr/share/doc" / package).is_dir():
            (deb,) = cache.glob(f"{package}_*.deb")
            subprocess.run(["dpkg", "-x", str(deb), str(cache / "unpacked")], check=True)
    return cache / "unpacked" / ROOT


class Liveries:
    """The pictures of one model; a plane has one folder of pictures for each airline."""

    def __init__(self, entry: Entry):
        self.by_name: dict[str, list[Path]] = {}
        for path in entry.pictures:
            self.by_name.setdefault(path.name.lower(), []).append(path)

    def choose(
        self, names: tuple[str, ...], rng: np.random.Generator
    ) -> tuple[Textures, list[int]]:
        """Textures of one livery, and for each name its index in them (-1 where there is none)."""
        choices = [self.by_name.get(name.lower(), []) for name in names]
        most = max(choices, key=len, default=[])
        folder = most[rng.integers(len(most))].parent if most else None
        pictures, index = [], []
        for paths in choices:
            picture = None
            if paths:
                same = [p for p in paths if p.parent == folder]
                picture = _picture(same[0] if same else paths[rng.integers(len(paths))])
            index.append(-1 if picture is None else len(pictures))
            if picture is not None:
                pictures.append(picture)
        return Textures.pack(pictures), [*index, -1]


def _picture(path: Path) -> np.ndarray | None:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGBA")
    except (OSError, ValueError):  # a few .rgb files are of a kind that Pillow can't read
        return None
    picture.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE), Image.Resampling.BOX)
    return np.asarray(picture, np.float32) / 255


def views(entry: Entry, count: int, size: int, seed: list[int]) -> list[np.ndarray]:
    """Up to `count` views of one model; none if the file can't be read."""
    rng = np.random.default_rng(seed)
    try:
        mesh = ac3d.read(entry.path)
    except (ValueError, IndexError):
        return []
    if mesh is None or len(mesh.corners) < (100 if entry.category == "plane" else 12):
        return []
    liveries, plane, drawn = Liveries(entry), entry.category == "plane", []
    for i in range(count):
        if i % VIEWS_PER_LIVERY == 0:
            textures, index = liveries.choose(mesh.textures, rng)
            dressed = replace(mesh, texture=np.array(index, np.int32)[mesh.texture])
        elevation = rng.uniform(-15, 45) if plane else rng.uniform(0, 35)
        roll = rng.normal(0, 10) if plane else 0.0
        view = turn(rng.uniform(0, 2 * np.pi), *np.deg2rad([elevation, roll]))
        light = np.array([rng.uniform(-1, 1), rng.uniform(0.3, 1), rng.uniform(0.2, 1)])
        picture = render(dressed, textures, view, light / np.linalg.norm(light), size)
        if (picture[..., 3] > 127).mean() > SMALLEST:
            drawn.append(picture)
    return drawn


def main() -> None:
    """Render all splits into one file of pictures, categories, families and splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--views", type=int, nargs=4, default=(40, 64, 64, 6), metavar=CATEGORIES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    per_model = dict(zip(CATEGORIES, options.views, strict=True))
    models = entries(fetch())
    counts = [per_model[entry.category] for entry in models]
    seeds = [[options.seed, number] for number in range(len(models))]
    pictures, found = [], []
    with ProcessPoolExecutor(options.workers) as pool:
        drawn_each = pool.map(views, models, counts, repeat(options.size), seeds)
        for entry, drawn in zip(models, drawn_each, strict=True):
            pictures += drawn
            found += [(entry.category, entry.family, entry.split)] * len(drawn)
    category, family, split = np.array(found).T
    np.savez(
        options.out, pictures=np.array(pictures), category=category, family=family, split=split
    )
    families = Counter((c, s) for c, _, s in {*found})
    for key, count in sorted(Counter(zip(category, split, strict=True)).items()):
        print(*key, f"{families[key]} families, {count} views")


if __name__ == "__main__":
    main()
