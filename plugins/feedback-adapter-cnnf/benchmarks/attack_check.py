"""Our attacks beside those of AutoAttack's authors, on the same images, eps and budgets.

    pip install './plugins/feedback-adapter-cnnf[attack]'
    python plugins/feedback-adapter-cnnf/benchmarks/attack_check.py --images 50

Each attack alone on all images: accuracy it leaves, ours and that of `pyautoattack`, and on how
many images the two disagree. Starts are random and differ, so a few images may. Our PGD has no
counterpart there; it is compared with their APGD-CE of as many steps.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import fa_cnnf
from fa_cnnf.attacks import Objective, apgd, apgd_targeted, pgd, square
from fa_cnnf.attacks.suite import views_of
from fa_cnnf.data import fashion_mnist, to_input
from fa_cnnf.loops import CNNF

NETS = ("fashion-cnn-adversarial:0", "fashion-cnnf-adversarial:1")


def ours(model: CNNF, readout: str, x: Tensor, y: Tensor, eps: float, o: Any) -> dict[str, Tensor]:
    """Right (n, bool) after each of our attacks, for images in [-1, 1]."""
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(o["seed"])) * 2 - 1

    def objective(loss: str) -> Objective:
        return Objective(lambda images: views_of(model, images, readout), y, loss)

    found = {
        "pgd": pgd(objective("ce"), x, start, 2 * eps, o["steps"]),
        "apgd-ce": apgd(objective("ce"), x, start, 2 * eps, o["steps"]),
        "apgd-t": apgd_targeted(objective("ce"), x, start, 2 * eps, o["steps"], o["targets"]),
        "square": square(objective("margin"), x, 2 * eps, o["queries"], o["seed"]),
    }
    return {name: right(model, readout, adv, y) for name, adv in found.items()}


def theirs(
    model: CNNF, readout: str, x: Tensor, y: Tensor, eps: float, o: Any
) -> dict[str, Tensor]:
    """The same with pyautoattack, which takes images in [0, 1]."""
    from pyautoattack import AutoAttack

    suite = AutoAttack(
        lambda pixels: views_of(model, 2 * pixels - 1, readout)[0],
        version="custom", attacks=["apgd-ce"], eps=eps, seed=o["seed"],
    )  # fmt: skip
    suite.apgd.n_restarts, suite.apgd.n_iter, suite.apgd.loss = 1, o["steps"], "ce"
    suite.apgd_targeted.n_iter = o["steps"]
    suite.apgd_targeted.n_target_classes = o["targets"]
    suite.square.n_queries = o["queries"]
    pixels = (x + 1) / 2
    found = {
        "apgd-ce": suite.apgd.perturb(pixels, y),
        "apgd-t": suite.apgd_targeted.perturb(pixels, y),
        "square": suite.square.perturb(pixels, y),
    }
    for adv in found.values():
        assert (adv - pixels).abs().max() <= eps + 1e-6
    hits = {name: right(model, readout, 2 * adv - 1, y) for name, adv in found.items()}
    return {"pgd": hits["apgd-ce"], **hits}


def right(model: CNNF, readout: str, x: Tensor, y: Tensor) -> Tensor:
    """(n, bool)"""
    with torch.no_grad():
        return views_of(model, x, readout)[0].argmax(-1) == y


def main(
    images: Annotated[int, typer.Option(min=1)] = 50,
    eps: Annotated[float, typer.Option()] = 0.1,
    steps: Annotated[int, typer.Option()] = 40,
    targets: Annotated[int, typer.Option()] = 3,
    queries: Annotated[int, typer.Option()] = 500,
    seed: Annotated[int, typer.Option()] = 1,
    data: Annotated[Path, typer.Option()] = fashion_mnist.FOLDER,
    out: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Compare on the adversarially trained pair of Fashion-MNIST."""
    pixels, labels = fashion_mnist.read(data)
    x, y = to_input(pixels[:images]), labels[:images]
    options = {"steps": steps, "targets": targets, "queries": queries, "seed": seed}
    rows: list[dict[str, Any]] = []
    for net in NETS:
        name, _, readout = net.partition(":")
        model = fa_cnnf.load(name).model.requires_grad_(False)
        hits, seconds = [], []
        for suite in (ours, theirs):
            begun = time.perf_counter()
            hits.append(suite(model, readout, x, y, eps, options))
            seconds.append(round(time.perf_counter() - begun))
        for kind in hits[0]:
            a, b = hits[0][kind], hits[1][kind]
            row = {
                "checkpoint": name, "iteration": int(readout), "attack": kind, "eps": eps,
                "ours": round(100 * float(a.double().mean()), 2),
                "pyautoattack": round(100 * float(b.double().mean()), 2),
                "disagree": int((a != b).sum()), "images": images, **options,
            }  # fmt: skip
            rows.append(row)
            print(row, flush=True)
        print("seconds", seconds, flush=True)
    if out is not None:
        out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
