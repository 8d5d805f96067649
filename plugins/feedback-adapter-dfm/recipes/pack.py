"""Pack CamVid and CIFAR-10 into the files that the benchmarks read.

python recipes/pack.py camvid FOLDER OUT
python recipes/pack.py cifar10 FOLDER OUT
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image

from feedback_adapter.errors import InputError

__all__ = ["app", "camvid", "cifar10"]

app = typer.Typer(help="Pack data sets into one file each.")

SIZE = (240, 180)
"""Width and height of a frame of CamVid, half of the original's."""

QUALITY = 90
"""Of the JPEGs of frames."""


@app.command()
def camvid(folder: Path, out: Path) -> None:
    """Pack CamVid as of the SegNet tutorial: FOLDER/train, trainannot, val, valannot and so on."""
    packed: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        files = _files(folder / split, "*.png")
        packed |= _blob(split, [_frame(file) for file in files])
        masks = [np.asarray(Image.open(folder / f"{split}annot" / file.name)) for file in files]
        packed[f"{split}_mask"] = np.stack([mask[::2, ::2] for mask in masks]).astype(np.uint8)
    _write(out / "camvid.npz", packed)


@app.command()
def cifar10(folder: Path, out: Path) -> None:
    """Pack CIFAR-10 from image files: FOLDER/train/airplane/*, FOLDER/test/airplane/* and so on."""
    packed: dict[str, Any] = {}
    for split in ("train", "test"):
        classes = sorted(path.name for path in (folder / split).iterdir() if path.is_dir())
        found = [
            (file, number)
            for number, name in enumerate(classes)
            for file in _files(folder / split / name, "*.*")
        ]
        packed |= _blob(split, [file.read_bytes() for file, _ in found])
        packed[f"{split}_label"] = np.array([number for _, number in found], np.uint8)
    _write(out / "cifar10_jpeg.npz", packed)


def _files(folder: Path, pattern: str) -> list[Path]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise InputError(f"There is no {pattern} in {folder}.")
    return files


def _frame(file: Path) -> bytes:
    written = io.BytesIO()
    small = Image.open(file).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
    small.save(written, "JPEG", quality=QUALITY)
    return written.getvalue()


def _blob(split: str, images: list[bytes]) -> dict[str, Any]:
    """Encoded images, one behind another, and where each begins."""
    return {
        f"{split}_jpeg": np.frombuffer(b"".join(images), np.uint8),
        f"{split}_offset": np.cumsum([0, *map(len, images)]),
    }


def _write(file: Path, packed: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **packed)
    typer.echo(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    app()
