"""Photographs of real planes: `python benchmarks/real.py --help`.

The rule by which they are chosen was written before any result was looked at: photographs of
COCO 2014 with exactly one box of an aeroplane, whose longer side is 40 to 95% of the photograph's
(which is squashed to a square); those of the validation split come first, then those of the
training split, each by file name; the first 20. None was seen in training, where photographs with
traffic were left out. COCO's photographs are measured and never shown: the picture shows one
free photograph, a stamp of Tux Paint (GPL 2), on the sky, and on scikit-image's photographs.

Writes results/photographs.json: IoU of the box around the mask with COCO's box, and how often the
middle of the mask lies in the box, with 95% bootstrap intervals.
"""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from command import parser
from drawn import ROOT, bank, photos
from gallery import free_photographs, grid, over, show
from intervals import versions, with_interval
from PIL import Image
from rivals import others
from torch import Tensor

import feedback_adapter as fa

from scenes import DARKEST, SIDE  # isort: skip  (drawn adds recipes/training to the path)

CATEGORY, COUNT, SIDES = "aeroplane", 20, (0.4, 0.95)
MIDDLE = slice(round(0.2 * SIDE), round(0.8 * SIDE))
SKY = (0.55, 0.7, 0.9)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


def chosen(coco: Path) -> dict[str, Box]:
    """Names of the photographs that the rule chooses, with the plane's box in shares."""
    names = [entry["name"] for entry in json.loads((coco / "classes.json").read_text())]
    kind = names.index(CATEGORY)
    found: dict[str, Box] = {}
    every = json.loads((coco / "annotations.json").read_text())
    for name, entry in sorted(every.items(), key=lambda pair: (-_is_val(pair[1]), pair[0])):
        boxes = [box for label, *box in entry["boxes"] if label == kind]
        if len(boxes) != 1 or not SIDES[0] <= max(boxes[0][2:]) <= SIDES[1]:
            continue
        x, y, width, height = boxes[0]
        found[name] = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return dict(list(found.items())[:COUNT])


def _is_val(entry: dict) -> bool:
    return entry["split"] == "val2014"


def read(coco: Path, names: list[str]) -> Tensor:
    """Encoded photographs (n, 3, SIDE, SIDE)."""
    with zipfile.ZipFile(coco / "images.zip") as archive:
        inside = {Path(name).name: name for name in archive.namelist()}
        pictures = [
            Image.open(io.BytesIO(archive.read(inside[name]))).convert("RGB").resize((SIDE, SIDE))
            for name in names
        ]
    values = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).float()
    return DARKEST + (1 - DARKEST) * values.permute(0, 3, 1, 2) / 255


def around(mask: Tensor) -> Box | None:
    """The box around a mask (SIDE, SIDE) of bool, in shares; None if it is empty."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(rows):
        return None
    ends = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (float(end) / SIDE for end in ends)
    return left, top, right, bottom


def box_iou(one: Box | None, other: Box) -> float:
    """Intersection over union; 0 if there is no box."""
    if one is None:
        return 0.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0.0) * max(height, 0.0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return both / (area(one) + area(other) - both)


def points_at(mask: Tensor, box: Box) -> float:
    """Whether the middle of a mask lies in a box."""
    where = (mask.nonzero().float() + 0.5) / SIDE
    if not len(where):
        return 0.0
    y, x = where.mean(0).tolist()
    return float(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def measure(methods: dict[str, Callable[[Tensor], Tensor]], images: Tensor, boxes: list[Box]):
    """Rows of the table."""
    rows = []
    for name, method in methods.items():
        masks = [method(image) for image in images]
        pairs = list(zip(masks, boxes, strict=True))
        for metric, values in (
            ("box IoU", [box_iou(around(mask), box) for mask, box in pairs]),
            ("middle inside the box", [points_at(mask, box) for mask, box in pairs]),
        ):
            row = {"photographs": "COCO", "method": name, "metric": metric}
            rows.append(row | with_interval(values))
    return rows


def shown(model, stamp: Path):
    """The free photograph on the sky and on other photographs, what is found, what is expected."""
    cut = Image.open(stamp).convert("RGBA")
    cut = cut.crop(cut.getchannel("A").getbbox())
    width = round(0.7 * SIDE)
    cut = cut.resize((width, round(cut.height * width / cut.width)), Image.Resampling.LANCZOS)
    picture = torch.from_numpy(np.asarray(cut).copy()).permute(2, 0, 1).float() / 255
    sky = DARKEST + (1 - DARKEST) * torch.tensor(SKY)[:, None, None].expand(3, SIDE, SIDE)
    figure, axes = grid(3, 1 + len(free_photographs()))
    for column, ground in zip(axes.T, [sky, *free_photographs()], strict=True):
        scene = ground.clone()
        top, left = (SIDE - picture.shape[1]) // 2, (SIDE - width) // 2
        part = scene[:, top : top + picture.shape[1], left : left + width]
        part += picture[3] * (DARKEST + (1 - DARKEST) * picture[:3] - part)
        (found,) = model.backward(scene[None], ["plane"])
        show(column[0], scene, "scene")
        show(column[1], over(scene, found.mask), "found")
        show(column[2], found.picture, "expected")
    return figure


def main() -> None:
    """Measure and write the table; draw if a stamp is given."""
    command = parser(__doc__, "models", "objects", "coco", out="results/photographs.json")
    command.add_argument("--stamp", type=Path, help="747.png of tuxpaint-stamps-default")
    options = command.parse_args()
    net = fa.load(options.checkpoint).model
    model = net.generative()

    @torch.no_grad()
    def backward(image: Tensor) -> Tensor:
        return model.backward(image[None], ["plane"])[0].mask > 0.5

    def middle(image: Tensor) -> Tensor:
        mask = torch.zeros(image.shape[1:], dtype=torch.bool)
        mask[MIDDLE, MIDDLE] = True
        return mask

    training, grounds = bank(options.objects, "train"), photos(options.coco, "dev")
    methods = {"backward": backward, **others(options.models, net.net, training, grounds)}
    methods["the middle 60% of each side"] = middle
    found = chosen(options.coco)
    rows = measure(methods, read(options.coco, list(found)), list(found.values()))
    options.out.write_text(json.dumps(versions() | {"rows": rows}, indent=1) + "\n")
    for row in rows:
        print(row)
    if options.stamp:
        figure = shown(model, options.stamp)
        figure.tight_layout(pad=0.3)
        figure.savefig(ROOT / "docs/images/real.png", dpi=110, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
