"""Fit tau and the bias of the strategy `backward`, and write them into a checkpoint.

`python calibrate.py --checkpoint FOLDER --objects objects.npz --coco coco6k` searches scenes of
development families, in front of photographs that no training saw, for each category, and
maximises the likelihood of what is there.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from backgrounds import Backgrounds
from data import TRAINED, from_arrays, photographs
from examples import Sampler
from torch import Tensor

import feedback_adapter as fa
from fa_backward.strategy import total

SEEN = 200  # pixels of a category that make it present; scenes with fewer, not none, don't count
TAUS = torch.cat([torch.zeros(1), torch.logspace(-6, 0, 121)])


def gather(adapter: fa.Adapter, sampler: Sampler, count: int, seconds: float) -> Tensor:
    """Rows of log-odds of the beam, whether the category is there, and the plain net's logit."""
    model, begin, rows = adapter.model.generative(), time.monotonic(), []
    for _ in range(count):
        scene = sampler.draw(1)
        plain = adapter.model(scene.images)[0]
        for index, name in enumerate(model.categories):
            area = float(scene.masks[0, index].sum())
            if 0 < area < SEEN:
                continue
            (found,) = model.backward(scene.images, [name])
            rows.append((float(total(found.alternatives)), float(area >= SEEN), plain[index]))
        if time.monotonic() - begin > seconds:
            break
    return torch.tensor(rows)


def best_bias(values: Tensor, there: Tensor) -> tuple[float, float]:
    """The most likely bias, by bisection, and nats per question."""
    low, high = -values.max() - 20, -values.min() + 20
    for _ in range(60):
        middle = (low + high) / 2
        more = torch.sigmoid(values + middle).mean() < there.mean()
        low, high = (middle, high) if more else (low, middle)
    return float(low), float(F.binary_cross_entropy_with_logits(values + low, there))


def known_parts(adapter: fa.Adapter, sampler: Sampler, count: int) -> dict[str, float]:
    """What is known to be there is told: nats per other category, before and after."""
    before, after = [], []
    for _ in range(count):
        scene = sampler.draw(1)
        area = scene.masks[0].sum((1, 2))
        facts = {n: 1 for n, a in zip(adapter.labels, area.tolist(), strict=True) if a >= SEEN}
        result = adapter.refine(scene.images, fa.Labels([facts]), strategy="backward")
        for index in torch.where(area == 0)[0].tolist():
            before.append(F.softplus(result.before[0, index]))
            after.append(F.softplus(result.after[0, index]))
    names = ("questions", "plain net", "backward")
    values = (len(before), float(sum(before)) / len(before), float(sum(after)) / len(after))
    return {name: round(value, 4) for name, value in zip(names, values, strict=True)}


@torch.no_grad()
def main() -> None:
    """Calibrate a checkpoint in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=400)
    options = parser.parse_args()
    adapter = fa.load(options.checkpoint)
    objects = from_arrays(options.objects, "dev", "cpu")
    pictures = photographs(options.coco, "train2014", TRAINED + 300)[TRAINED:]
    photos = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    sampler = Sampler(objects, Backgrounds(photos), torch.Generator().manual_seed(3))
    odds, there, plain = gather(adapter, sampler, options.scenes, options.seconds).unbind(1)
    fits = [(*best_bias(plain + float(tau) * odds, there), float(tau)) for tau in TAUS]
    bias, nats, tau = min(fits, key=lambda fit: fit[1])
    share = there.mean().expand_as(there)
    found = {"tau": float(f"{tau:.3g}"), "bias": round(bias, 2)}
    others = dict(adapter.defaults.others) | {"backward": found}
    adapter.defaults = dataclasses.replace(adapter.defaults, others=others)
    measured = {
        "questions": len(there),
        "present": round(float(there.mean()), 3),
        "nats": round(nats, 4),
        "nats of the share alone": round(float(F.binary_cross_entropy(share, there)), 4),
        "nats of the plain net": round(float(F.binary_cross_entropy_with_logits(plain, there)), 4),
        "nats of what isn't there, once the rest is told": known_parts(
            adapter, sampler, options.scenes // 3
        ),
    }
    training = dict(adapter.card.training) | {"calibration on dev": measured}
    adapter.card = dataclasses.replace(adapter.card, training=training)
    adapter.save(options.checkpoint)
    print(json.dumps(found | measured, indent=1))


if __name__ == "__main__":
    main()
