"""A picture for each checkpoint of the zoo: one image, and what is predicted before and after.

A checkpoint that is new gets its picture by a line in `_CASES`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage import data
from torch import Tensor

import feedback_adapter as fa
from feedback_adapter.evidence import Evidence

Picture = Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is shown to a checkpoint.

    Args:
        shows: What can be seen in the image.
        picture: Makes it: grey (height, width) or colours (height, width, 3), 0 to 255.
        evidence: What is known of it.
        options: Of `refine`.
        scale: For networks without a transform: what values between 0 and 1 are mapped to.
    """

    shows: str
    picture: Picture
    evidence: Evidence
    options: dict[str, object] = dataclasses.field(default_factory=dict)
    scale: tuple[float, float] = (-1, 1)


def case_of(name: str) -> Case | None:
    """The case of a checkpoint, if there is one."""
    return next((case for names, case in _CASES.items() if fnmatch.fnmatch(name, names)), None)


def draw(name: str, case: Case, path: Path) -> None:
    """Refine the case's image, and save the picture."""
    torch.manual_seed(0)
    adapter = fa.load(name)
    picture = case.picture()
    if adapter.transform is None:
        low, high = case.scale
        channels = torch.tensor(picture / 255, dtype=torch.float32)
        channels = channels[None] if channels.ndim == 2 else channels.permute(2, 0, 1)
        images = channels[None] * (high - low) + low
        result = adapter.refine(images, case.evidence, **case.options)
        result = dataclasses.replace(result, images=channels.expand(3, -1, -1)[None])
    else:
        images = adapter.transform.open(picture)
        result = adapter.refine(images, case.evidence, **case.options)
    path.parent.mkdir(parents=True, exist_ok=True)
    result.plot(path, top=6)


def _motorcycle() -> np.ndarray:
    return data.stereo_motorcycle()[0]


def _small_cat() -> np.ndarray:
    face = Image.fromarray(data.chelsea()).crop((80, 0, 380, 300))
    return np.asarray(face.resize((32, 32)))


def _noisy(drawn: Tensor, deviation: float, *, stretch: bool) -> np.ndarray:
    noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0))
    values = drawn + deviation * noise
    if stretch:
        values = (values - values.min()) / (values.max() - values.min())
    return (values.clamp(0, 1) * 255).numpy()


def _polygons(side: int, brightness: int, *polygons: list[tuple[int, int]]) -> Tensor:
    """Polygons in a grid that is three times as fine as the image."""
    canvas = Image.new("L", (3 * side, 3 * side))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon(polygon, fill=brightness)
    return torch.tensor(np.asarray(canvas.resize((side, side))) / 255)


def _trousers() -> np.ndarray:
    outline = [(28, 3), (56, 3), (61, 81), (47, 81), (42, 30), (37, 81), (24, 81)]
    return _noisy(_polygons(28, 170, outline), 0.2, stretch=False)


def _triangles() -> np.ndarray:
    both = ([(20, 110), (62, 118), (40, 72)], [(84, 62), (126, 54), (96, 20)])
    return _noisy(_polygons(48, 255, *both), 0.5, stretch=True)


def _triangle() -> np.ndarray:
    return _noisy(_polygons(48, 255, [(40, 100), (110, 90), (70, 30)]), 1.0, stretch=True)


_TWO = Case(
    "two triangles under noise; a click is in one of them",
    _triangles,
    fa.Pixels(clicks=[(13, 33, "triangle")]),
    scale=(-2, 2),
)
_CASES = {
    "caption-words-*": Case("an astronaut", data.astronaut, fa.Labels({"woman": 1})),
    "flickr8k-caption-*": Case("an astronaut", data.astronaut, fa.Labels({"woman": 1})),
    "coco80-*": Case("a cup of coffee", data.coffee, fa.Labels({"cup": 1})),
    "imagenet-*": Case("a rocket on its launch pad", data.rocket, fa.Coarse("vehicle")),
    "tinyimagenet-*": Case("a cat", data.chelsea, fa.Labels({"feline": 1})),
    "camvid-*": Case(
        "a motorcycle in a garage, unlike the street scenes of the training; the floor is marked",
        _motorcycle,
        fa.Pixels(boxes=[(10, 155, 230, 178, "pavement")]),
    ),
    "cifar10-*": Case("a cat in 32 x 32 pixels", _small_cat, fa.Labels({"dog": 0})),
    "fashion-*": Case("trousers under noise", _trousers, fa.Labels({"dress": 0, "shirt": 0})),
    "triangles-clicks-*": _TWO,
    "triangles-*": Case(
        "a triangle under noise; a click is near its upper corner",
        _triangle,
        fa.Pixels(clicks=[(24, 14, "triangle")]),
        scale=(-2, 2),
    ),
}
