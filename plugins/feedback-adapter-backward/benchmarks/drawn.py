"""The scenes that the benchmark asks about: one plane on six kinds of ground, with the truth."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "training"))

from data import TRAINED, from_arrays, photographs  # noqa: E402
from scenes import DARKEST, SIDE, Objects, Pose, compose, encode, place  # noqa: E402

KINDS = ("nothing", "plain", "clutter", "photo", "two", "occluded")
PLANE, OTHERS = 0, (1, 2, 3)
MOST_HIDDEN, LEAST_HIDDEN = 0.6, 0.15  # share of the plane in the occluded scenes
SEEDS = {"train": 5, "dev": 11, "test": 77}


@dataclass(frozen=True)
class Drawn:
    """Scenes and what is true of them.

    Attributes:
        images: (n, 3, SIDE, SIDE), encoded.
        seen: (n, planes, SIDE, SIDE) of bool, what is seen of each plane.
        whole: The same with what is hidden.
        brightness: (n, planes), mean colour of each plane.
        alone: (n, planes, 3, SIDE, SIDE), each plane on nothing, encoded.
        pose: (n, planes, 3), each plane's longer side as a share of the scene, y and x of its
            middle from -1 to 1.
    """

    images: Tensor
    seen: Tensor
    whole: Tensor
    brightness: Tensor
    alone: Tensor
    pose: Tensor

    def __len__(self) -> int:
        return len(self.images)


def photos(coco: Path, split: str, count: int = 300) -> Tensor:
    """Encoded photographs without traffic that no training saw: (count, 3, SIDE, SIDE)."""
    source, skip = ("val2014", 0) if split == "test" else ("train2014", TRAINED)
    pictures = photographs(coco, source, skip + count)[skip:]
    small = np.stack([np.asarray(p.resize((SIDE, SIDE))) for p in pictures]).astype(np.float32)
    return DARKEST + (1 - DARKEST) * torch.from_numpy(small).permute(0, 3, 1, 2) / 255


def bank(path: Path, split: str) -> Objects:
    """Rendered views of the families of one split."""
    return from_arrays(path, split, "cpu")


def draw(kind: str, n: int, objects: Objects, photographs: Tensor, seed: int) -> Drawn:
    """Some scenes of one kind.

    `nothing` and `plain` have one plane alone, `clutter` another object too, which may be
    behind it, `photo` an unseen photograph behind it, `two` two planes of one size side by
    side, and in `occluded` another object hides 15 to 60% of it.
    """
    drawn = _draw(kind, n, objects, photographs, torch.Generator().manual_seed(seed))
    while len(drawn) < n:  # occluded scenes that hide too little or too much are left out
        seed += 1000
        more = _draw(kind, n, objects, photographs, torch.Generator().manual_seed(seed))
        parts = zip(vars(drawn).values(), vars(more).values(), strict=True)
        drawn = Drawn(*(torch.cat(pair) for pair in parts))
    return Drawn(*(part[:n] for part in vars(drawn).values()))


def _draw(kind: str, n: int, objects: Objects, photographs: Tensor, g) -> Drawn:
    planes, others = objects.of((PLANE,)), objects.of(OTHERS)

    def layer(bank: Objects, pose: Pose) -> Tensor:
        return place(bank.pictures[torch.randint(len(bank), (n,), generator=g)], pose)

    nothing = torch.zeros(n, 3, SIDE, SIDE)
    plain = nothing + DARKEST + (1 - DARKEST) * torch.rand(n, 3, 1, 1, generator=g)
    if kind == "two":
        poses = _side_by_side(n, g)
        layers, shown, ground = [layer(planes, pose) for pose in poses], (0, 1), plain
    else:
        poses = (Pose.random(n, g),)
        plane = layer(planes, poses[0])
        behind = photographs[torch.randint(len(photographs), (n,), generator=g)]
        ground = {"nothing": nothing, "clutter": nothing, "photo": behind}.get(kind, plain)
        layers, shown = [plane], (0,)
        if kind == "clutter":
            layers, shown = [layer(others, Pose.random(n, g, 0.3, 0.6)), plane], (1,)
        if kind == "occluded":
            layers = [plane, layer(others, Pose.random(n, g, 0.3, 0.6))]
    images, visible = compose(torch.stack(layers, 1), ground)
    seen = visible[:, list(shown)]
    whole = torch.stack([layers[i][:, 3] for i in shown], 1)
    colours = torch.stack([layers[i][:, :3].sum((1, 2, 3)) for i in shown], 1)
    alone = torch.stack([encode(layers[i]) for i in shown], 1)
    pose = torch.stack([torch.stack([p.side, p.y, p.x], 1) for p in poses], 1)
    shades = colours / whole.sum((2, 3)).clamp(min=1) / 3
    drawn = (images, seen > 0.5, whole > 0.5, shades, alone, pose)
    if kind == "occluded":
        hidden = 1 - seen.sum((1, 2, 3)) / whole.sum((1, 2, 3)).clamp(min=1)
        keep = (hidden > LEAST_HIDDEN) & (hidden < MOST_HIDDEN)
        drawn = tuple(part[keep] for part in drawn)
    return Drawn(*drawn)


def _side_by_side(n: int, g) -> tuple[Pose, Pose]:
    """Two poses that don't overlap much; sizes differ, so that one is the larger."""
    first, second = Pose.random(n, g, 0.4, 0.52), Pose.random(n, g, 0.4, 0.52)
    side = (torch.rand(n, generator=g) < 0.5).float() * 2 - 1
    left = Pose(first.side, -0.47 * side, first.y, first.flip, first.angle)
    right = Pose(second.side, 0.47 * side, second.y, second.flip, second.angle)
    return left, right
