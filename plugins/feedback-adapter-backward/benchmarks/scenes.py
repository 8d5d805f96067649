"""Find planes of held-out families in scenes: `python benchmarks/scenes.py --help`.

Mask IoU of the generative backward pass, of the published model and of four others, with 95%
bootstrap intervals, into `results/scenes.json`. Objects come from `recipes/render/render.py`,
the mask head and the published model's parameters from `recipes/training` (`reference.py`).
A run that ends early, by `--seconds`, goes on where it stopped when the command is given again.
"""

import json
import time
from pathlib import Path

import torch
from command import parser
from drawn import KINDS, PLANE, SEEDS, Drawn, bank, draw, photos
from intervals import versions, with_interval
from methods import iou, pieces
from rivals import best_cut, others
from torch import Tensor

import feedback_adapter as fa
from fa_backward import GenerativeModel, Instance, Place
from fa_backward.offsets import shift

from reference import reference  # isort: skip  (drawn adds recipes/training to the path)
from scenes import Pose, place  # isort: skip

FOUND = 0.4  # IoU above which one of two planes counts as found


def one_plane(found: Instance, drawn: Drawn, i: int) -> dict[str, float]:
    """What is measured of the best explanation."""
    return {"mask IoU": iou(found.mask > 0.5, drawn.seen[i, 0])}


def hidden(found: Instance, drawn: Drawn, i: int, mean: Tensor) -> dict[str, float]:
    """The part that isn't seen: as decoded, and from the mean plane at the same place."""
    true, seen = drawn.whole[i, 0] & ~drawn.seen[i, 0], found.mask > 0.5
    best = found.alternatives
    cells = [round(float(c) * mean.shape[-1] / 8) for c in best.offset[0]]
    average = best.frame[0].back(shift(mean, *cells, 0.0)[None, None])[0, 0]
    return {
        "hidden part IoU": iou((found.amodal > 0.5) & ~seen, true),
        "hidden part IoU, mean template": iou((average > 0.5) & ~seen, true),
        "whole IoU": iou(found.amodal > 0.5, drawn.whole[i, 0]),
    }


def matched(masks: list[Tensor], true: Tensor) -> list[int] | None:
    """Which plane each of two masks is, if both planes are found."""
    if len(masks) < 2:
        return None
    table = [[iou(m, t) > FOUND for t in true] for m in masks]
    if table[0][0] and table[1][1]:
        return [0, 1]
    return [1, 0] if table[0][1] and table[1][0] else None


def two_planes(model: GenerativeModel, drawn: Drawn, i: int) -> dict[str, float]:
    """Both found one by one; and where they are, whether left, largest, darkest are right."""
    instances = model.parse(drawn.images[i], 2, ["plane"])
    planes = matched([one.mask > 0.5 for one in instances], drawn.seen[i])
    values = {"both found": float(planes is not None)}
    if planes is None:
        return values
    columns = torch.arange(drawn.seen.shape[-1], dtype=torch.float32)
    middles = [(t.sum(0) * columns).sum() / t.sum() for t in drawn.seen[i].float()]
    left = int(middles[0] > middles[1])
    (asked,) = model.backward(
        drawn.images[i : i + 1],
        ["plane"],
        place=lambda centres: Place("left").log_prior(0, centres),
    )
    overlaps = [iou(asked.mask > 0.5, t) for t in drawn.seen[i]]
    values["left right"] = float(overlaps[left] > overlaps[1 - left])
    sizes = [float(one.amodal.sum()) for one in instances]
    largest = planes[int(sizes[1] > sizes[0])]
    values["largest right"] = float(largest == int(drawn.whole[i].sum((1, 2)).argmax()))
    shades = [float((x.picture * x.amodal).sum() / x.amodal.sum()) for x in instances]
    darkest = planes[int(shades[1] < shades[0])]
    values["darkest right"] = float(darkest == int(drawn.brightness[i].argmin()))
    return values


def average_plane(objects) -> Tensor:
    """Mean mask of planes in their own frame, (SIDE, SIDE)."""
    planes = objects.of((PLANE,))
    pictures = planes.pictures[torch.randperm(len(planes))[:400]]
    return place(pictures, Pose.canonical(len(pictures), "cpu"))[:, 3].mean(0)


def measure(store: dict, kind: str, drawn: Drawn, searches, methods, mean, until) -> None:
    """Add values of scenes that weren't measured yet, until the time is up."""
    for i in range(len(drawn)):
        for name, model in searches.items():
            done = store.setdefault(f"{kind}/{name}", [])
            if len(done) > i:
                continue
            if time.monotonic() > until:
                return
            if kind == "two":
                done.append(two_planes(model, drawn, i))
                continue
            (found,) = model.backward(drawn.images[i : i + 1], ["plane"])
            values = one_plane(found, drawn, i)
            done.append(values | (hidden(found, drawn, i, mean) if kind == "occluded" else {}))
        for name, method in methods.items():
            done = store.setdefault(f"{kind}/{name}", [])
            if len(done) > i:
                continue
            mask = method(drawn.images[i])
            if kind == "two":
                done.append({"both found": float(matched(pieces(mask), drawn.seen[i]) is not None)})
            else:
                done.append({"mask IoU": iou(mask, drawn.seen[i, 0])})


def rows(store: dict) -> list[dict]:
    """Means with 95% bootstrap intervals over scenes."""
    table = []
    for key in sorted(store, key=lambda key: (KINDS.index(key.split("/")[0]), key)):
        kind, method = key.split("/")
        for metric in dict.fromkeys(m for values in store[key] for m in values):
            array = [values[metric] for values in store[key] if metric in values]
            row = {"scenes": kind, "method": method, "metric": metric}
            table.append(row | with_interval(array))
    return table


def main() -> None:
    """Measure what isn't measured yet, and write the table of all that is."""
    command = parser(__doc__, "models", "objects", "coco", out="results/scenes.json")
    command.add_argument("--reference", type=Path, help="what reference.py wrote; may be left out")
    command.add_argument("--store", type=Path, required=True, help="keeps values between runs")
    command.add_argument("--n", type=int, default=300)
    command.add_argument("--step", type=int, default=20, help="scenes of a kind before the next")
    command.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    command.add_argument("--seconds", type=float, default=1e9)
    options = command.parse_args()
    until = time.monotonic() + options.seconds
    net = fa.load(options.checkpoint).model
    model = net.generative()
    searches = {"backward": model}
    training = bank(options.objects, "train")
    if options.reference:
        published = reference(model, options.reference)
        published.cut = best_cut(published, training, photos(options.coco, "dev"))
        print(f"reference: cut {published.cut:.2f}", flush=True)
        searches["reference"] = published
    mean = average_plane(training)
    methods = others(options.models, net.net, training, photos(options.coco, "dev"))
    objects, photographs = bank(options.objects, "test"), photos(options.coco, "test")
    scenes = {k: draw(k, options.n, objects, photographs, SEEDS["test"]) for k in KINDS}
    store = json.loads(options.store.read_text()) if options.store.exists() else {}
    for end in range(options.step, options.n + options.step, options.step):
        for kind in options.kinds:
            part = Drawn(*(value[:end] for value in vars(scenes[kind]).values()))
            measure(store, kind, part, searches, methods, mean, until)
            options.store.write_text(json.dumps(store))
        if time.monotonic() > until:
            break
    table = versions() | {"rows": rows(store)}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(table, indent=1) + "\n")
    for row in table["rows"]:
        print(row)


if __name__ == "__main__":
    main()
