"""Fit the generative model of a trained backbone.

`python train_generative.py --data data.npz --backbone compositional.safetensors --out DIR`
estimates the observation model, finds the templates and trains the decoders.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from backbone import TOP, Backbone
from examples import Sampler
from safetensors.torch import load_file, save_file
from scenes import SIDE, Objects, Pose, encode, liveries, place
from torch import Tensor
from train_backbone import SAVE_EVERY, samplers

from fa_backward.generative import IMAGE, Activations
from fa_backward.learning import Pairs, fit_decoders

SITES = {TOP: (96, 8, 8), "pool3": (96, 16, 16), "pool2": (48, 32, 32), "pool1": (24, 64, 64)}
CATEGORIES = ("plane", "ship", "vehicle")
SHARES = (300, 100, 100)
JITTER = 4  # pixels: templates needn't fit exactly


class Network:
    """A frozen backbone as a function from images to activations by site, the image too."""

    def __init__(self, net: Backbone):
        self.net = net.eval()

    @torch.no_grad()
    def __call__(self, images: Tensor, chunk: int = 64) -> dict[str, Tensor]:
        parts = [self.net(piece)[0] for piece in images.split(chunk)]
        found = {site: torch.cat([part[site] for part in parts]) for site in SITES}
        return found | {IMAGE: images}


def load_backbone(path: Path, device) -> Network:
    """The training form of a saved backbone."""
    state = load_file(path, device=str(device))
    net = Backbone().to(device)
    net.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("net.")})
    return Network(net)


@torch.no_grad()
def fit_observations(model: Activations, network: Network, sampler: Sampler, batches: int) -> dict:
    """Estimate every site's observation model from random scenes of random targets."""
    scene: dict[str, list[Tensor]] = {name: [] for name in model.names}
    alone: dict[str, list[Tensor]] = {name: [] for name in model.names}
    alpha, seen = [], []
    for _ in range(batches):
        scenes = sampler.draw(32)
        for store, images in ((scene, scenes.images), (alone, scenes.alone)):
            for name, activation in network(images).items():
                store[name].append(activation)
        alpha.append(scenes.target[:, None])
        seen.append(scenes.seen[:, None])
    alpha, seen = torch.cat(alpha), torch.cat(seen)
    report = {}
    for name, observation in zip(model.names, model.observations, strict=True):
        stride = SIDE // model.shapes[name][1]
        around = 3 * stride if 1 < stride < 16 else 2 * stride if stride > 1 else 1
        pad = (around - stride) // 2
        hidden = F.max_pool2d(alpha - seen, around, stride, pad) > 0.2
        covered = F.avg_pool2d(alpha, stride)
        found, own = torch.cat(scene[name]), torch.cat(alone[name])
        report[name] = observation.fit(found, own, covered, hidden)
    return report


@torch.no_grad()
def fit_templates(model: Activations, network: Network, objects: Objects, shares) -> Tensor:
    """Cluster all objects in their own frames, mirrored too: (2, n, 3) nearest templates."""
    device, found = objects.pictures.device, []
    for flip in (1.0, -1.0):
        for piece in objects.pictures.split(128):
            layer = place(piece, Pose.canonical(len(piece), device, flip))
            top = network(encode(layer))[TOP]
            found.append(model.observations[0].normalise(top).half())
    nearest = model.templates.fit(torch.cat(found), objects.category.repeat(2), list(shares))
    return nearest.view(2, len(objects), -1)


class Drawer:
    """Draws the decoders' training pairs: objects in their own frames inside scenes."""

    def __init__(self, model, network, objects, nearest, sampler, batch: int):
        self.model, self.network, self.objects = model, network, objects
        self.nearest, self.sampler, self.batch = nearest, sampler, batch

    @torch.no_grad()
    def __call__(self) -> Pairs:
        n, g = self.batch, self.sampler.generator
        index = self.sampler.targets(n)
        mirrored = torch.randint(2, (n,), generator=g, device=g.device)
        pose = Pose.canonical(n, g.device)
        shift = torch.rand(2, n, generator=g, device=g.device) * 2 - 1
        x, y = shift * (2 * JITTER / SIDE)
        pose = replace(pose, flip=1.0 - 2 * mirrored, x=x, y=y)
        layer = place(self.objects.pictures[index], pose, liveries(n, g, 0.1, swap=0.1))
        scenes = self.sampler.around(layer, self.objects.category[index])
        choice = torch.randint(self.nearest.shape[2], (n,), generator=g, device=g.device)
        return Pairs(
            self.nearest[mirrored, index, choice],
            self.model.normalise(self.network(scenes.images)),
            self.model.normalise(self.network(scenes.alone)),
            scenes.target[:, None],
        )


@torch.no_grad()
def scores(model: Activations, network, objects, sampler: Sampler, batches: int = 12) -> dict:
    """On held-out objects in their own frames, what the search can reach at best.

    `from SITE` is the IoU of the mask decoded from the true activations of a site; `search`
    starts from the best template in the scene, and passes down with evidence at every site;
    `SITE log-odds above 0` says how often that evidence speaks for the true object.
    """
    found: dict[str, list[float]] = {}
    last, n = len(model.names) - 1, 16
    rows = torch.arange(n, device=objects.pictures.device)
    for _ in range(batches):
        index = sampler.targets(n)
        layer = place(objects.pictures[index], Pose.canonical(n, rows.device))
        scenes = sampler.around(layer, objects.category[index])
        scene = model.normalise(network(scenes.images))
        pairs = Pairs(index, scene, model.normalise(network(scenes.alone)), scenes.target[:, None])
        true = scenes.target > 0.5
        for start in range(last):
            above = pairs.alone[start]
            for level in range(start + 1, last + 1):
                logit, mean = model.predict(level, above)
                each = model.mismatch(level, logit, mean, pairs.alone[level], pairs.alpha)
                best = each.argmin(1)
                above = model.settle(level, logit[rows, best], mean[rows, best], None).value
            found.setdefault(f"from {model.names[start]}", []).append(
                _iou(logit[rows, best, 0], true)
            )
        above = model.top(_best_template(model, scene[0], scenes.category), scene[0]).value
        for level in range(1, last + 1):
            logit, mean = model.predict(level, above)
            result = model.settle(level, logit, mean, scene[level][:, None])
            odds = result.log_odds.sum((2, 3, 4))
            best = odds.argmax(1)
            above = result.value[rows, best]
            positive = float((odds.amax(1) > 0).float().mean())
            found.setdefault(f"{model.names[level]} log-odds above 0", []).append(positive)
        found.setdefault("search", []).append(_iou(logit[rows, best, 0], true))
    return {key: round(sum(values) / len(values), 4) for key, values in found.items()}


def _best_template(model: Activations, scene: Tensor, category: Tensor) -> Tensor:
    templates = model.templates
    odds = [
        model.settle(0, templates.logit, templates.mean, one[None]).log_odds.sum((1, 2, 3))
        for one in scene
    ]
    return (torch.stack(odds) + templates.log_prior[category]).argmax(1)


def _iou(logit: Tensor, true: Tensor) -> float:
    mask = logit > 0
    return float(((mask & true).sum((1, 2)) / (mask | true).sum((1, 2)).clamp(min=1)).mean())


def main() -> None:
    """Fit and write `generative.safetensors`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--templates", type=int, nargs=3, default=SHARES)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--made", type=int, default=500)
    parser.add_argument("--scenes", type=int, default=1600, help="for the observation model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(options.seed)
    begin, device = time.monotonic(), torch.device(options.device)
    generator = torch.Generator(device).manual_seed(options.seed)
    network = load_backbone(options.backbone, device)
    sampler, dev = samplers(options.data, options.made, generator)
    objects = sampler.objects
    shapes = SITES | {IMAGE: (3, SIDE, SIDE)}
    count = sum(options.templates)
    model = Activations(shapes, CATEGORIES, count, options.components).to(device)
    lines = (options.out / "generative.jsonl").open("w")

    def log(record: dict) -> None:
        record = record | {"seconds": round(time.monotonic() - begin, 1)}
        lines.write(json.dumps(record) + "\n")
        lines.flush()
        print("generative", record, flush=True)

    log({"observations": fit_observations(model, network, sampler, options.scenes // 32)})
    nearest = fit_templates(model, network, objects, options.templates)
    log({"templates used": int((model.templates.logit[:, 0, 0, 0] > -9).sum())})
    drawer = Drawer(model, network, objects, nearest, sampler, options.batch)
    saved = [time.monotonic()]

    def log_and_save(record: dict) -> None:
        log(record)
        if time.monotonic() - saved[0] > SAVE_EVERY:
            saved[0] = time.monotonic()
            save(model, options.out, {})

    left = max(1.0, options.seconds - (time.monotonic() - begin) - 10)
    log({"decoder steps": fit_decoders(model, drawer, generator, seconds=left, log=log_and_save)})
    save(model, options.out, {})
    measured = scores(model, network, dev.objects, dev)
    log({"held out": measured})
    save(model, options.out, measured)


def save(model: Activations, out: Path, measured: dict) -> None:
    """Write `generative.safetensors`; the templates in half precision."""
    state = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
    for key in ("templates.logit", "templates.mean"):
        state[key] = state[key].half()
    partial = out / "generative.partial"
    save_file(state, partial, {"held_out": json.dumps(measured)})
    partial.rename(out / "generative.safetensors")


if __name__ == "__main__":
    main()
