"""Rows of the plugin's results/robustness.json: the attack suite and the controls, on a CPU.

    python plugins/feedback-adapter-cnnf/benchmarks/robustness.py suite --seed 1 --images 50
    python plugins/feedback-adapter-cnnf/benchmarks/robustness.py noise --nets cifar10 --data CIFAR

The argument says which part of the table is measured:

- `suite`: every attack that uses gradients, one after the other, at the eps of training;
- `eps`: PGD-40 at four eps and all iterations;
- `queries`: SPSA and Square, which only ask for predictions;
- `controls`: the same weights with another decoder;
- `noise`: no attack, and Gaussian noise, also for the nets that weren't attacked in training.

Seed 1 is the zoo's; for others give `--weights FOLDER` with the folders NAME-sSEED that
recipes/fashion_cnnf.py writes. Rows of the same run are replaced, all others are kept.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import fa_cnnf
from fa_cnnf.attacks import Objective, pgd
from fa_cnnf.attacks.suite import Budget, attack
from fa_cnnf.checkpoints import build
from fa_cnnf.data import read, to_input
from fa_cnnf.loops import CNNF
from feedback_adapter.checkpoint import find, read_config

RESULTS = Path(__file__).parents[1] / "results" / "robustness.json"
GRADIENTS = ("pgd", "apgd-ce", "apgd-t", "bpda", "all-iterates", "first-pass", "cut")
NOISE = (0.1, 0.2)
"""Standard deviations in [0, 1] units."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A net with feedback and its feedforward control, both trained adversarially.

    Args:
        net: Name of the checkpoint with feedback; its control's has `cnn` for `cnnf`.
        eps: Largest change of a pixel in training.
        others: Every eps that the net is attacked with.
    """

    net: str
    eps: float
    others: tuple[float, ...]

    @property
    def control(self) -> str:
        """Name of the checkpoint without feedback."""
        return self.net.replace("cnnf", "cnn")


PAIRS = {
    "fashion": Pair("fashion-cnnf-adversarial", 0.1, (0.025, 0.05, 0.1, 0.2)),
    "cifar10": Pair("cifar10-wrn-cnnf-adversarial", 8 / 255, (2 / 255, 4 / 255, 8 / 255, 16 / 255)),
}


class Run:
    """What is attacked, and the rows, which are written as they come."""

    def __init__(
        self,
        nets: str,
        data: Path | None,
        images: int,
        seed: int,
        weights: Path | None,
        out: Path,
        clean: int = 0,
    ) -> None:
        self.pair, self.seed, self.weights, self.path = PAIRS[nets], seed, weights, out
        self.images = images
        pixels, labels = read(nets, data)
        count = max(images, clean)
        self.x, self.y = to_input(pixels[:count]), labels[:count]
        self.begun = time.perf_counter()

    def model(self, name: str) -> CNNF:
        """A checkpoint's net."""
        torch.manual_seed(self.seed)
        weights = self.weights
        return fa_cnnf.load(name if weights is None else weights / f"{name}-s{self.seed}").model

    def steps(self) -> int:
        """T in training."""
        return self.model(self.pair.net).steps

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


def suite(run: Run) -> None:
    """Every attack that uses gradients, and transfer from the other net, at training's eps."""
    net, control = run.pair.net, run.pair.control
    readouts = ["0", str(run.steps()), "avg"]
    for name, other, own in ((control, net, ["0"]), (net, control, readouts)):
        run.attack(
            name, [run.pair.eps], readouts=own, kinds=GRADIENTS, source=run.model(other),
            budget=Budget(steps=40, targets=3),
        )  # fmt: skip


def eps(run: Run) -> None:
    """PGD-40 at four eps and all iterations."""
    for name, readouts in (
        (run.pair.control, ["0"]),
        (run.pair.net, ["0", "1", "2", "avg", "5", "10"]),
    ):
        for readout in readouts:
            run.attack(
                name, run.pair.others, readouts=[readout], kinds=["pgd"], budget=Budget(steps=40)
            )


def queries(run: Run) -> None:
    """SPSA and Square, after PGD, at the eps of training."""
    for name, readouts in ((run.pair.control, ["0"]), (run.pair.net, ["0", str(run.steps())])):
        run.attack(
            name, [run.pair.eps], readouts=readouts, kinds=["spsa", "square", "pgd"], each=True,
            budget=Budget(steps=40, queries=5000, samples=32, spsa_steps=10),
        )  # fmt: skip


def noise(run: Run) -> None:
    """No attack, and Gaussian noise, at all iterations; both kinds of training."""
    normal = torch.randn(run.x.shape, generator=torch.Generator().manual_seed(run.seed))
    for adversarial in (run.pair.net, run.pair.control):
        for name in (adversarial, adversarial.removesuffix("-adversarial")):
            model = run.model(name)
            for deviation in (0.0, *NOISE):
                x = (run.x + 2 * deviation * normal).clamp(-1, 1)
                what = {"attack": "gaussian" if deviation else "none", "eps": deviation}
                for iteration, right in hits(model, x, run.y).items():
                    last = "avg" if iteration is None else "last"
                    found = {"accuracy": percent(right), "images": len(run.x), "seed": run.seed}
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


def controls(run: Run) -> None:
    """The net with a random decoder, and with one whole step to the reconstruction."""
    net = run.pair.net
    model = run.model(net).requires_grad_(False)
    how = read_config(find(net))["architecture"]
    fresh = build(how["model"], how["kwargs"]).requires_grad_(False)
    x, y = run.x[: run.images], run.y[: run.images]
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(run.seed)) * 2 - 1
    cases = {
        "one-shot decoder": lambda images: unroll(model, model, images, 1, 1.0),
        "random decoder": lambda images: unroll(model, fresh, images, model.steps, model.step_size),
        "own decoder": lambda images: unroll(model, model, images, model.steps, model.step_size),
    }
    for name, logits in cases.items():
        t = 1 if name == "one-shot decoder" else model.steps
        case = {"readout": "last", "iteration": t, "seed": run.seed}
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
        adv = pgd(objective, x, start, 2 * run.pair.eps, 40)
        with torch.no_grad():
            right = logits(adv).argmax(-1) == y
        worst = {"attack": "pgd40", "eps": run.pair.eps, "accuracy": percent(right)}
        run.add(f"{net}, {name}", {**case, **worst, "images": run.images})


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


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the table, and what it is measured on unless told otherwise.

    Args:
        measure: Measures it and writes the rows.
        images: The first so many images of the test split.
        seed: Of training, and of the attacks.
        clean: At least so many images without an attack.
    """

    measure: Callable[[Run], None]
    images: int
    seed: int = 1
    clean: int = 0


PARTS = {
    "suite": Part(suite, 50),
    "eps": Part(eps, 50, seed=3),
    "queries": Part(queries, 20),
    "controls": Part(controls, 50, clean=500),
    "noise": Part(noise, 300),
}


def main(
    part: Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")],
    nets: Annotated[str, typer.Option(help=f"One of {', '.join(PAIRS)}.")] = "fashion",
    data: Annotated[
        Path | None, typer.Option(help="Folder of the images. [default: Debian's of Fashion-MNIST]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of training, and of the attacks.")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="The first so many of the test split.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of other seeds' checkpoints.")
    ] = None,
    out: Annotated[Path, typer.Option("--json", help="Where rows go.")] = RESULTS,
) -> None:
    """Measure a part of the table."""
    for name, given, possible in (("PART", part, PARTS), ("--nets", nets, PAIRS)):
        if given not in possible:
            raise typer.BadParameter(f"{name} {given!r} is none of {', '.join(possible)}.")
    chosen = PARTS[part]
    seed = chosen.seed if seed is None else seed
    chosen.measure(Run(nets, data, images or chosen.images, seed, weights, out, chosen.clean))


if __name__ == "__main__":
    typer.run(main)
