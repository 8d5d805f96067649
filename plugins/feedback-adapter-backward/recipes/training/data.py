"""The training data as one small file: objects as JPEG and PNG, photographs as JPEG.

`python data.py --objects objects.npz --coco coco6k --out data.npz` packs it; `load` gives the
banks. Photographs that show a plane, a ship or a vehicle are left out.
"""

import argparse
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from scenes import Objects
from torch import Tensor

CATEGORIES = ("plane", "ship", "vehicle", "building")
OBJECT_SIDE, PHOTO_SIDE = 96, 144
TRAINED = 2400  # photographs that the training may see
TRAFFIC = {"aeroplane", "boat", "car", "truck", "bus", "train"}


def encode_object(picture: np.ndarray) -> tuple[bytes, bytes]:
    """A (s, s, 4) view at OBJECT_SIDE: its colours times alpha as JPEG, its alpha as PNG."""
    alpha = picture[..., 3:] / 255
    layer = np.concatenate([picture[..., :3] * alpha, picture[..., 3:]], -1).round()
    small = Image.fromarray(layer.astype(np.uint8)).resize(
        (OBJECT_SIDE, OBJECT_SIDE), Image.Resampling.BOX
    )
    values = np.asarray(small)
    colours = _jpeg(values[..., :3], 80)
    file = io.BytesIO()
    Image.fromarray((values[..., 3] // 17 * 17).astype(np.uint8)).save(file, "PNG")
    return colours, file.getvalue()


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _decode_all(blob: np.ndarray, sizes: np.ndarray, workers: int = 4) -> np.ndarray:
    ends = np.cumsum(sizes)
    pieces = [blob[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)]
    with ThreadPoolExecutor(workers) as pool:
        return np.stack(list(pool.map(lambda p: np.asarray(Image.open(io.BytesIO(p))), pieces)))


def _join(pieces: list[bytes]) -> dict[str, np.ndarray]:
    return {
        "blob": np.frombuffer(b"".join(pieces), np.uint8),
        "sizes": np.array([len(p) for p in pieces], np.int32),
    }


def photographs(coco: Path, split: str, count: int, seed: int = 0) -> list[Image.Image]:
    """Photographs without traffic from a COCO folder of `images.zip` and `annotations.json`."""
    names = [entry["name"] for entry in json.loads((coco / "classes.json").read_text())]
    traffic = {names.index(name) for name in TRAFFIC}
    found = json.loads((coco / "annotations.json").read_text())
    keep = sorted(
        name
        for name, entry in found.items()
        if entry["split"] == split and not traffic.intersection(entry["labels"])
    )
    with zipfile.ZipFile(coco / "images.zip") as archive:
        inside = {Path(name).name: name for name in archive.namelist()}
        chosen = np.random.default_rng(seed).permutation(keep)[:count]
        return [_square(archive.read(inside[name])) for name in chosen]


def _square(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return ImageOps.fit(picture, (PHOTO_SIDE, PHOTO_SIDE))


def pack(objects: Path, photos: list[bytes], out: Path, splits: tuple[str, ...]) -> None:
    """Write objects of some splits and the photographs into one file."""
    with np.load(objects) as file:
        keep = np.isin(file["split"], splits)
        pictures, category = file["pictures"][keep], file["category"][keep]
        split = file["split"][keep].astype("S5")
    encoded = [encode_object(picture) for picture in pictures]
    arrays = {
        "category": np.array([CATEGORIES.index(c) for c in category], np.int8),
        "split": split,
    }
    for name, pieces in (
        ("colours", [c for c, _ in encoded]),
        ("alpha", [a for _, a in encoded]),
        ("photos", photos),
    ):
        arrays |= {f"{name} {key}": value for key, value in _join(pieces).items()}
    np.savez(out, **arrays)


def load(path: Path, split: str, device) -> tuple[Objects, Tensor]:
    """Objects of one split, and all photographs (n, 3, PHOTO_SIDE, PHOTO_SIDE) of uint8."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    colours, alpha, photos = (
        _decode_all(arrays[f"{name} blob"], arrays[f"{name} sizes"])
        for name in ("colours", "alpha", "photos")
    )
    layer = np.concatenate([np.minimum(colours, alpha[..., None]), alpha[..., None]], -1)
    keep = torch.from_numpy(arrays["split"] == split.encode())
    objects = Objects(
        torch.from_numpy(layer).permute(0, 3, 1, 2).contiguous()[keep].to(device),
        torch.from_numpy(arrays["category"].astype(np.int64))[keep].to(device),
    )
    return objects, torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous().to(device)


def from_arrays(path: Path, split: str, device) -> Objects:
    """Objects of one split straight from the renderer's file, at OBJECT_SIDE."""
    with np.load(path) as file:
        keep = file["split"] == split
        pictures, category = file["pictures"][keep].astype(np.float32), file["category"][keep]
    alpha = pictures[..., 3:]
    layer = torch.from_numpy(np.concatenate([pictures[..., :3] * alpha / 255, alpha], -1))
    layer = torch.nn.functional.interpolate(
        layer.permute(0, 3, 1, 2), size=OBJECT_SIDE, mode="area"
    )
    index = torch.tensor([CATEGORIES.index(c) for c in category])
    return Objects(layer.round().to(torch.uint8).to(device), index.to(device))


def main() -> None:
    """Pack the training and the development splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=TRAINED)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    photos = photographs(options.coco, "train2014", options.photos)
    encoded = [_jpeg(np.asarray(photo), 66) for photo in photos]
    pack(options.objects, encoded, options.out, ("train", "dev"))
    print(options.out, f"{options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
