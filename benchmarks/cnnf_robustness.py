"""Rows of docs/results/cnnf-robustness.json: the attack suite and the controls, on a CPU.

    python benchmarks/cnnf_robustness.py suite --seed 1 --images 50
    python benchmarks/cnnf_robustness.py eps --seed 3 --images 50
    python benchmarks/cnnf_robustness.py queries --seed 1 --images 20
    python benchmarks/cnnf_robustness.py controls --seed 1 --images 50
    python benchmarks/cnnf_robustness.py noise --nets cifar10 --data CIFAR --images 1000

`suite`: every attack that uses gradients, one after the other, at the eps of training. `eps`:
PGD-40 at four eps and all iterations. `queries`: SPSA and Square. `controls`: the same weights
with another decoder. `noise`: no attack, and Gaussian noise, the nets that weren't attacked in
training, too. `--nets` says which twins. Seed 1 is the zoo's; for others give `--weights FOLDER`
with the folders NAME-sSEED that zoo/recipes/fashion_cnnf.py writes. Rows of the same run are
replaced, all others are kept.
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
from fa_cnnf.attack import Budget, attack
from fa_cnnf.attacks import Objective, pgd
from fa_cnnf.checkpoints import build
from fa_cnnf.images import read, to_input
from fa_cnnf.loop import CNNF
from feedback_adapter.checkpoint import find, read_config

RESULTS = Path("docs/results/cnnf-robustness.json")
GRADIENTS = ("pgd", "apgd-ce", "apgd-t", "bpda", "all-iterates", "first-pass", "cut")
NOISE = (0.1, 0.2)
"""Standard deviations in [0, 1] units."""


@dataclasses.dataclass(frozen=True)
class Twins:
    """A net with feedback and its twin without, trained adversarially.

    Args:
        net: Name of the checkpoint with feedback; its twin's has `cnn` for `cnnf`.
        eps: Largest change of a pixel in training.
        others: Every eps that the net is attacked with.
    """

    net: str
    eps: float
    others: tuple[float, ...]

    @property
    def twin(self) -> str:
        return self.net.replace("cnnf", "cnn")


TWINS = {
    "fashion": Twins("fashion-cnnf-adversarial", 0.1, (0.025, 0.05, 0.1, 0.2)),
    "cifar10": Twins(
        "cifar10-wrn-cnnf-adversarial", 8 / 255, (2 / 255, 4 / 255, 8 / 255, 16 / 255)
    ),
}
app = typer.Typer()
Nets = Annotated[str, typer.Option(help=f"One of {', '.join(TWINS)}.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the images; Fashion's is known.")]
Seed = Annotated[int, typer.Option(help="Of training, and of the attacks.")]
Images = Annotated[int, typer.Option(min=1, help="The first so many of the test split.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of other seeds' checkpoints.")]
Out = Annotated[Path, typer.Option("--json", help="Where rows go.")]


class Run:
    """What is attacked, and the rows, which are written as they come."""

    def __init__(
        self, nets: str, data: Path | None, images: int, seed: int, weights: Path | None, out: Path
    ) -> None:
        self.twins, self.seed, self.weights, self.path = TWINS[nets], seed, weights, out
        pixels, labels = read(nets, data)
        self.x, self.y = to_input(pixels[:images]), labels[:images]
        self.begun = time.perf_counter()

    def model(self, name: str) -> CNNF:
        """A checkpoint's net."""
        torch.manual_seed(self.seed)
        weights = self.weights
        return fa_cnnf.load(name if weights is None else weights / f"{name}-s{self.seed}").model

    def steps(self) -> int:
        """T in training."""
        return self.model(self.twins.net).steps

    def attack(self, name: str, eps: Sequence[float], **options: Any) -> None:
        """Attack one net and write its rows."""
        attack(
            self.model(name), self.x, self.y, eps, seed=self.seed,
            report=lambda row: self.add(name, dataclasses.asdict(row)), **options,
        )  # fmt: skip

    def add(self, checkpoint: str, row: dict[str, Any]) -> None:
        """Write a row in place of the one of the same run."""
        new = {"checkpoint": checkpoint, **row}
        rows = json.loads(self.path.read_text())["rows"] if self.path.is_file() else []
        rows = [r for r in rows if any(r.get(k) != v for k, v in new.items() if k != "accuracy")]
        lines = ",\n".join(json.dumps(r) for r in [*rows, new])
        self.path.write_text('{"rows": [\n' + lines + "\n]}\n")
        print(round(time.perf_counter() - self.begun), "s", new, flush=True)


@app.command()
def suite(
    nets: Nets = "fashion", data: Data = None, seed: Seed = 1, images: Images = 50,
    weights: Weights = None, out: Out = RESULTS,
) -> None:  # fmt: skip
    """Every attack that uses gradients, and transfer from the twin, at the eps of training."""
    run = Run(nets, data, images, seed, weights, out)
    net, twin = run.twins.net, run.twins.twin
    readouts = ["0", str(run.steps()), "avg"]
    for name, other, own in ((twin, net, ["0"]), (net, twin, readouts)):
        run.attack(
            name, [run.twins.eps], readouts=own, kinds=GRADIENTS, source=run.model(other),
            budget=Budget(steps=40, targets=3),
        )  # fmt: skip


@app.command()
def eps(
    nets: Nets = "fashion", data: Data = None, seed: Seed = 3, images: Images = 50,
    weights: Weights = None, out: Out = RESULTS,
) -> None:  # fmt: skip
    """PGD-40 at four eps and all iterations."""
    run = Run(nets, data, images, seed, weights, out)
    for name, readouts in (
        (run.twins.twin, ["0"]),
        (run.twins.net, ["0", "1", "2", "avg", "5", "10"]),
    ):
        for readout in readouts:
            run.attack(
                name, run.twins.others, readouts=[readout], kinds=["pgd"], budget=Budget(steps=40)
            )


@app.command()
def queries(
    nets: Nets = "fashion", data: Data = None, seed: Seed = 1, images: Images = 20,
    weights: Weights = None, out: Out = RESULTS,
) -> None:  # fmt: skip
    """SPSA and Square, after PGD, at the eps of training."""
    run = Run(nets, data, images, seed, weights, out)
    for name, readouts in ((run.twins.twin, ["0"]), (run.twins.net, ["0", str(run.steps())])):
        run.attack(
            name, [run.twins.eps], readouts=readouts, kinds=["spsa", "square", "pgd"], each=True,
            budget=Budget(steps=40, queries=5000, samples=32, spsa_steps=10),
        )  # fmt: skip


@app.command()
def noise(
    nets: Nets = "fashion", data: Data = None, seed: Seed = 1, images: Images = 300,
    weights: Weights = None, out: Out = RESULTS,
) -> None:  # fmt: skip
    """No attack, and Gaussian noise, at all iterations; both kinds of training."""
    run = Run(nets, data, images, seed, weights, out)
    normal = torch.randn(run.x.shape, generator=torch.Generator().manual_seed(seed))
    for adversarial in (run.twins.net, run.twins.twin):
        for name in (adversarial, adversarial.removesuffix("-adversarial")):
            model = run.model(name)
            for deviation in (0.0, *NOISE):
                x = (run.x + 2 * deviation * normal).clamp(-1, 1)
                what = {"attack": "gaussian" if deviation else "none", "eps": deviation}
                for iteration, right in hits(model, x, run.y).items():
                    last = "avg" if iteration is None else "last"
                    found = {"accuracy": percent(right), "images": images, "seed": seed}
                    run.add(name, {"readout": last, "iteration": iteration, **what, **found})


def hits(model: CNNF, x: Tensor, y: Tensor) -> dict[int | None, Tensor]:
    """Which images are right by iteration; `None` is the mean of those of training."""
    longest = 10 if model.steps else 0
    with torch.no_grad():
        logits = torch.cat([model.unroll(part, longest).logits for part in x.split(100)], 1)
    found: dict[int | None, Tensor] = {
        t: logits[t].argmax(-1) == y for t in (0, 1, 2, 5, 10) if t <= longest
    }
    if model.steps:
        found[None] = logits[: model.steps + 1].mean(0).argmax(-1) == y
    return found


@app.command()
def controls(
    nets: Nets = "fashion", data: Data = None, seed: Seed = 1, images: Images = 50,
    weights: Weights = None, out: Out = RESULTS,
) -> None:  # fmt: skip
    """The net with a random decoder, and with one whole step to the reconstruction."""
    run = Run(nets, data, max(images, 500), seed, weights, out)
    net = run.twins.net
    model = run.model(net).requires_grad_(False)
    how = read_config(find(net))["architecture"]
    fresh = build(how["model"], how["kwargs"]).requires_grad_(False)
    x, y = run.x[:images], run.y[:images]
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    cases = {
        "one-shot decoder": lambda images: unroll(model, model, images, 1, 1.0),
        "random decoder": lambda images: unroll(model, fresh, images, model.steps, model.step_size),
        "own decoder": lambda images: unroll(model, model, images, model.steps, model.step_size),
    }
    for name, logits in cases.items():
        t = 1 if name == "one-shot decoder" else model.steps
        case = {"readout": "last", "iteration": t, "seed": seed}
        with torch.no_grad():
            right = torch.cat(
                [
                    logits(p).argmax(-1) == q
                    for p, q in zip(run.x.split(250), run.y.split(250), strict=True)
                ]
            )
        clean = {"attack": "none", "eps": 0.0, "accuracy": percent(right), "images": len(right)}
        run.add(f"{net}, {name}", {**case, **clean})
        objective = Objective(lambda images, logits=logits: logits(images)[None], y)
        adv = pgd(objective, x, start, 2 * run.twins.eps, 40)
        with torch.no_grad():
            right = logits(adv).argmax(-1) == y
        worst = {"attack": "pgd40", "eps": run.twins.eps, "accuracy": percent(right)}
        run.add(f"{net}, {name}", {**case, **worst, "images": images})


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
