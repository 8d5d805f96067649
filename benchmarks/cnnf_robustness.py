"""Rows of docs/results/cnnf-robustness.json: the attack suite and the controls, on a CPU.

    python benchmarks/cnnf_robustness.py suite --seed 1 --images 50
    python benchmarks/cnnf_robustness.py eps --seed 3 --images 50
    python benchmarks/cnnf_robustness.py queries --seed 1 --images 20
    python benchmarks/cnnf_robustness.py controls --seed 1 --images 50

`suite`: every attack that uses gradients, one after the other, at eps .1. `eps`: PGD-40 at four
eps and all iterations. `queries`: SPSA and Square. `controls`: the same weights with another
decoder. Seed 1 is the zoo's; for others give `--weights FOLDER` with the folders NAME-sSEED that
zoo/recipes/fashion_cnnf.py writes. Rows of the same run are replaced, all others are kept.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import fa_cnnf
from fa_cnnf import fashion_mnist
from fa_cnnf.attack import Budget, Row, attack
from fa_cnnf.attacks import Objective, pgd
from fa_cnnf.checkpoints import build
from fa_cnnf.loop import CNNF

RESULTS = Path("docs/results/cnnf-robustness.json")
NET, TWIN = "fashion-cnnf-adversarial", "fashion-cnn-adversarial"
GRADIENTS = ("pgd", "apgd-ce", "apgd-t", "bpda", "all-iterates", "first-pass", "cut")
app = typer.Typer()
Seed = Annotated[int, typer.Option(help="Of training, and of the attacks.")]
Images = Annotated[int, typer.Option(min=1, help="The first so many of the test split.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of other seeds' checkpoints.")]
Out = Annotated[Path, typer.Option("--json", help="Where rows go.")]


class Table:
    """Rows that are written as they come."""

    def __init__(self, path: Path, images: int, seed: int) -> None:
        self.path, self.images, self.seed = path, images, seed
        self.begun = time.perf_counter()

    def add(self, checkpoint: str, row: Row | dict[str, Any]) -> None:
        """Write a row in place of the one of the same run."""
        fields = dataclasses.asdict(row) if isinstance(row, Row) else row
        new = {"checkpoint": checkpoint, **fields}
        rows = json.loads(self.path.read_text())["rows"] if self.path.is_file() else []
        rows = [r for r in rows if any(r.get(k) != v for k, v in new.items() if k != "accuracy")]
        lines = ",\n".join(json.dumps(r) for r in [*rows, new])
        self.path.write_text('{"rows": [\n' + lines + "\n]}\n")
        print(round(time.perf_counter() - self.begun), "s", new, flush=True)


def read(name: str, seed: int, images: int, weights: Path | None) -> tuple[CNNF, Tensor, Tensor]:
    """A net and test images in [-1, 1] with their classes."""
    torch.manual_seed(seed)
    pixels, labels = fashion_mnist.read(fashion_mnist.FOLDER)
    model = fa_cnnf.load(name if weights is None else weights / f"{name}-s{seed}").model
    return model, fashion_mnist.to_input(pixels[:images]), labels[:images]


def run(
    table: Table, name: str, weights: Path | None, eps: Sequence[float], **options: Any
) -> None:
    """Attack one net and write its rows."""
    model, x, y = read(name, table.seed, table.images, weights)
    source = options.pop("source", None)
    if source is not None:
        options["source"] = read(source, table.seed, 1, weights)[0]
    attack(model, x, y, eps, seed=table.seed, report=lambda row: table.add(name, row), **options)


@app.command()
def suite(seed: Seed = 1, images: Images = 50, weights: Weights = None, out: Out = RESULTS) -> None:
    """Every attack that uses gradients, and transfer from the twin, at eps .1."""
    table = Table(out, images, seed)
    for name, other, readouts in ((TWIN, NET, ["0"]), (NET, TWIN, ["0", "1", "avg"])):
        budget = Budget(steps=40, targets=3)
        run(
            table, name, weights, [0.1],
            readouts=readouts, kinds=GRADIENTS, source=other, budget=budget,
        )  # fmt: skip


@app.command()
def eps(seed: Seed = 3, images: Images = 50, weights: Weights = None, out: Out = RESULTS) -> None:
    """PGD-40 at four eps and all iterations."""
    table = Table(out, images, seed)
    for name, readouts in ((TWIN, ["0"]), (NET, ["0", "1", "avg", "2", "5", "10"])):
        for readout in readouts:
            run(
                table, name, weights, [0.025, 0.05, 0.1, 0.2],
                readouts=[readout], kinds=["pgd"], budget=Budget(steps=40),
            )  # fmt: skip


@app.command()
def queries(
    seed: Seed = 1, images: Images = 20, weights: Weights = None, out: Out = RESULTS
) -> None:
    """SPSA and Square, after PGD, at eps .1."""
    table = Table(out, images, seed)
    for name, readouts in ((TWIN, ["0"]), (NET, ["0", "1"])):
        budget = Budget(steps=40, queries=5000, samples=32, spsa_steps=10)
        kinds = ["spsa", "square", "pgd"]
        run(table, name, weights, [0.1], readouts=readouts, kinds=kinds, budget=budget, each=True)


@app.command()
def controls(
    seed: Seed = 1, images: Images = 50, weights: Weights = None, out: Out = RESULTS
) -> None:
    """The net with a random decoder, and with one whole step to the reconstruction."""
    table = Table(out, images, seed)
    model, x, y = read(NET, seed, images, weights)
    model.requires_grad_(False)
    torch.manual_seed(seed)
    fresh = build("fashion", {"site": "relu2"}).requires_grad_(False)
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    pixels, labels = fashion_mnist.read(fashion_mnist.FOLDER)
    cases = {
        "one-shot decoder": lambda images: unroll(model, model, images, 1, 1.0),
        "random decoder": lambda images: unroll(model, fresh, images, 1, model.step_size),
        "own decoder": lambda images: unroll(model, model, images, 1, model.step_size),
    }
    for name, logits in cases.items():
        case = {"readout": "last", "iteration": 1, "seed": seed}
        with torch.no_grad():
            hits = torch.cat(
                [
                    logits(fashion_mnist.to_input(p)).argmax(-1) == q
                    for p, q in zip(pixels[:500].split(250), labels[:500].split(250), strict=True)
                ]
            )
        clean = {"attack": "none", "eps": 0.0, "accuracy": percent(hits), "images": 500}
        table.add(f"{NET}, {name}", {**case, **clean})
        objective = Objective(lambda images, logits=logits: logits(images)[None], y)
        adv = pgd(objective, x, start, 0.2, 40)
        with torch.no_grad():
            hits = logits(adv).argmax(-1) == y
        worst = {"attack": "pgd40", "eps": 0.1, "accuracy": percent(hits), "images": images}
        table.add(f"{NET}, {name}", {**case, **worst})


def unroll(model: CNNF, decoder: CNNF, x: Tensor, steps: int, step_size: float) -> Tensor:
    """Logits after `steps` iterations, feedback running through another net's weights.

    The two nets have the same layers, so that one `State` serves both.
    """
    state = fa_cnnf.State(step_size)
    h = model.bottom(x, state)
    o = top(model, h, state)
    for cycle in range(1, steps + 1):
        g = o
        for segment in reversed(decoder.segments):
            g = segment.feedback(g, state)  # pyright: ignore[reportCallIssue]
        h = h + step_size * (g - h)
        state.cycle = cycle
        o = top(model, h, state)
    return o


def top(model: CNNF, h: Tensor, state: fa_cnnf.State) -> Tensor:
    for segment in model.segments:
        h = segment(h, state)
    return h


def percent(right: Tensor) -> float:
    return round(100 * float(right.double().mean()), 2)


if __name__ == "__main__":
    app()
