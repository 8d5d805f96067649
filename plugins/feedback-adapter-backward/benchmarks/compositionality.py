"""A distractor slides towards a plane: what happens to the plane's score and to its features.

`python benchmarks/compositionality.py --models FOLDER --objects objects.npz` compares this plugin's
backbone, the same network trained without the compositional losses, and ImageNet's lite0. The
distractor is behind the plane, so that the plane itself looks the same in all pictures. Writes
results/compositionality.json and docs/images/compositionality.png.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from drawn import OTHERS, PLANE, ROOT, SEEDS, bank
from intervals import versions
from torch import Tensor

import feedback_adapter as fa

from assemble import backbone, read  # isort: skip  (drawn adds recipes/training to the path)
from scenes import DARKEST, SIDE, Objects, Pose, compose, encode, place  # isort: skip

matplotlib.use("agg")
from matplotlib import pyplot as plt

GAPS = (30, 24, 18, 12, 8, 4, 0, -8, -16, -32)
"""Pixels between the plane's box and the distractor's; below 0 it is partly behind the plane."""
PLANE_SIDE, OTHER_SIDE = 0.48, 0.28  # of the scene
LEFT = -0.48  # of the plane's middle, from -1 to 1
PLANE_CLASSES = ("airliner", "warplane")  # of ImageNet
LEAST_POWER = 0.05  # of the mean, as in the training's losses
CHUNK = 20
OWN, FREE, LITE0 = "this backbone", "without the compositional losses", "ImageNet lite0"
LINES = ((OWN, "top"), (FREE, "top"), (LITE0, "1/16"))
PLOTS = {
    "relative change": "relative change of the features",
    "absolute change": "change of the score",
}


@dataclass(frozen=True)
class Net:
    """A network: encoded images to maps by site, and to the probability of a plane."""

    sites: Callable[[Tensor], dict[str, Tensor]]
    score: Callable[[Tensor], Tensor]


def own(state: dict[str, Tensor], name: str) -> Net:
    """One of the two backbones that the recipe trained."""
    trunk, _ = backbone(state, name)

    def score(images: Tensor) -> Tensor:
        logits = trunk.classes(trunk(images)[0]["top"]).amax((2, 3))
        return torch.sigmoid(logits[:, PLANE])

    return Net(lambda images: trunk(images)[0], score)


def lite0() -> Net:
    """EfficientNet-lite0 of the zoo; nothing is grey there, the middle of its range."""
    adapter = fa.load("imagenet-lite0")
    model, size = adapter.model.eval(), adapter.transform.size
    classes = [list(adapter.labels).index(name) for name in PLANE_CLASSES]

    def view(images: Tensor) -> Tensor:
        colours = 2 * (images - DARKEST) / (1 - DARKEST) - 1
        colours = torch.where(images.amax(1, keepdim=True) < DARKEST / 2, 0.0, colours)
        return F.interpolate(colours, size=size, mode="bilinear", antialias=True)

    def sites(images: Tensor) -> dict[str, Tensor]:
        last, maps = model.forward_intermediates(view(images))
        return {f"1/{SIDE * 7 // 4 // m.shape[-1]}": m for m in maps} | {"last": last}

    def score(images: Tensor) -> Tensor:
        return model(view(images)).softmax(1)[:, classes].sum(1)

    return Net(sites, score)


def scenes(planes: Objects, others: Objects, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Planes alone (n, 3, SIDE, SIDE), their alphas, and scenes (gaps, n, 3, SIDE, SIDE)."""
    g = torch.Generator().manual_seed(seed)
    zero = torch.zeros(n)
    flip = (torch.rand(n, generator=g) < 0.5).float() * 2 - 1
    pick = lambda bank: bank.pictures[torch.randint(len(bank), (n,), generator=g)]  # noqa: E731
    plane = place(pick(planes), Pose(zero + PLANE_SIDE, zero + LEFT, zero, flip, zero))
    other = place(pick(others), Pose(zero + OTHER_SIDE, zero, zero, flip, zero))
    end = [_box(layer)[1] for layer in plane]
    begin = [_box(layer)[0] for layer in other]
    rows = []
    for gap in GAPS:
        moves = [e + gap - b for e, b in zip(end, begin, strict=True)]
        moved = torch.stack([_moved(x, m) for x, m in zip(other, moves, strict=True)])
        image, _ = compose(torch.stack([moved, plane], 1), torch.zeros(n, 3, SIDE, SIDE))
        rows.append(image)
    return encode(plane), plane[:, 3:], torch.stack(rows)


def _box(layer: Tensor) -> tuple[int, int]:
    """First column, and the column after the last, where a layer (4, h, w) shows anything."""
    columns = (layer[3].amax(0) > 0.05).nonzero()[:, 0]
    return int(columns[0]), int(columns[-1]) + 1


def _moved(layer: Tensor, right: int) -> Tensor:
    """A layer moved by some pixels; what leaves the scene is lost."""
    result = torch.zeros_like(layer)
    width = layer.shape[-1]
    result[..., max(right, 0) : width + min(right, 0)] = layer[
        ..., max(-right, 0) : width - max(right, 0)
    ]
    return result


@torch.no_grad()
def in_chunks(function, images: Tensor):
    """A net's function on any number of images."""
    parts = [function(piece) for piece in images.split(CHUNK)]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def energies(scene: Tensor, alone: Tensor, alpha: Tensor) -> Tensor:
    """sum w (scene - alone)^2 and sum w alone^2 of each picture, (n, 2).

    w is the share of a cell that the plane covers. Channels are divided by their rms on the
    planes first, so that all count alike, but not by much less than the channels' mean: a
    channel that planes hardly use would count most.
    """
    share = F.adaptive_avg_pool2d(alpha, scene.shape[-2:])
    power = (share * alone**2).sum((0, 2, 3)) / share.sum().clamp(min=1)
    weight = 1 / (power + LEAST_POWER * power.mean())
    parts = [(share * x**2).sum((2, 3)) @ weight for x in (scene - alone, alone)]
    return torch.stack(parts, 1)


def measure(net: Net, alone: Tensor, alpha: Tensor, rows: Tensor) -> dict[tuple, Tensor]:
    """By site, metric and gap of each picture what is measured and what it is divided by."""
    one = torch.ones(len(alone))
    maps, before = in_chunks(net.sites, alone), in_chunks(net.score, alone)
    found = {("score", "alone", None): torch.stack([before, one], 1)}
    for gap, images in zip(GAPS, rows, strict=True):
        for site, moved in in_chunks(net.sites, images).items():
            found[site, "relative change", gap] = energies(moved, maps[site], alpha)
        after = in_chunks(net.score, images)
        found["score", "with the distractor", gap] = torch.stack([after, one], 1)
        found["score", "absolute change", gap] = torch.stack([(after - before).abs(), one], 1)
    return found


def table(name: str, found: dict[tuple, Tensor]) -> list[dict]:
    """Ratios of sums over pictures, with 95% bootstrap intervals."""
    rows = []
    for (site, metric, gap), values in found.items():
        array = values.double().numpy()
        draws = np.random.default_rng(0).integers(len(array), size=(2000, len(array)))
        sums = array[draws].sum(1)
        low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
        numbers = (array[:, 0].sum() / array[:, 1].sum(), low, high)
        rounded = (round(float(number), 4) for number in numbers)
        numbers = dict(zip(("value", "low", "high"), rounded, strict=True))
        place = {"net": name, "site": site, "metric": metric, "gap": gap}
        rows.append(place | numbers | {"n": len(array)})
    return rows


def figure(rows: list[dict], images: Tensor):
    """Some pictures above, changes and scores by gap below."""
    grid = plt.figure(figsize=(7.5, 5.2))
    parts = grid.add_gridspec(2, 1, height_ratios=(1, 2.6))
    top = parts[0].subgridspec(1, len(GAPS) // 2)
    for column, index in enumerate(range(1, len(GAPS), 2)):
        axis = grid.add_subplot(top[column])
        picture = (images[index] - DARKEST) / (1 - DARKEST)
        nothing = images[index].amax(0) < DARKEST / 2
        axis.imshow(torch.where(nothing, 1.0, picture).clamp(0, 1).permute(1, 2, 0))
        axis.set_xticks([]), axis.set_yticks([])
        axis.set_title(f"{GAPS[index]} pixels", fontsize=8)
    below = parts[1].subgridspec(1, 2, wspace=0.3)
    for column, (metric, title) in enumerate(PLOTS.items()):
        axis = grid.add_subplot(below[column])
        for net, site in LINES:
            wanted = site if column == 0 else "score"
            line = [r for r in rows if (r["net"], r["site"], r["metric"]) == (net, wanted, metric)]
            gaps, label = [r["gap"] for r in line], f"{net}, {site}"
            axis.plot(gaps, [r["value"] for r in line], marker=".", label=label)
            axis.fill_between(gaps, [r["low"] for r in line], [r["high"] for r in line], alpha=0.2)
        axis.invert_xaxis()
        axis.set_ylim(bottom=0)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("pixels between plane and distractor", fontsize=8)
        axis.tick_params(labelsize=7)
        if column == 0:
            axis.legend(fontsize=7)
    return grid


def main() -> None:
    """Measure, write the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="what finish.py wrote")
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--n", type=int, default=100, help="planes")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "compositionality.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/images/compositionality.png")
    options = parser.parse_args()
    objects, state = bank(options.objects, "test"), read(options.models)
    planes, others = objects.of((PLANE,)), objects.of(OTHERS)
    alone, alpha, images = scenes(planes, others, options.n, SEEDS["test"])
    nets = {OWN: own(state, "compositional"), FREE: own(state, "free"), LITE0: lite0()}
    rows = []
    for name, net in nets.items():
        rows += table(name, measure(net, alone, alpha, images))
        print(name, flush=True)
    result = versions() | {"rows": rows}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    drawn = figure(rows, images[:, 0])
    drawn.savefig(options.figure, dpi=110, bbox_inches="tight", pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
