"""The suite: attacks that aim at the read-out that is reported, and the worst of them.

The published evaluation scored `avg` under attacks on `last`, which an attacker need not do.
An accuracy under attack is an upper bound: a better attack can only lower it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fa_cnnf.attacks import Objective, apgd, apgd_targeted, pgd, spsa, square
from fa_cnnf.attacks.base import check_range
from fa_cnnf.loops import CNNF
from feedback_adapter.errors import OptionsError

__all__ = ["KINDS", "Budget", "Row", "attack", "views_of"]

KINDS = (
    "pgd",
    "apgd-ce",
    "apgd-t",
    "bpda",
    "all-iterates",
    "first-pass",
    "cut",
    "spsa",
    "square",
)
"""PGD and Auto-PGD (cross-entropy; targeted) through the whole unroll; PGD with smooth switches in
the backward pass, on the mean loss of all iterates, on the first pass only, and without gradients
through feedback; SPSA and Square, which use no gradients."""

OF_FEEDBACK = ("all-iterates", "first-pass", "cut")
WIDTH = 0.1
"""Of the smooth switches, in root mean squares of what they look at."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much work an attack may do.

    Args:
        steps: Of PGD and of each run of Auto-PGD, at least 0.
        targets: Wrong classes that the targeted attack tries, at least 1.
        queries: Forward passes of Square, at least 1.
        samples: Pairs of values for a gradient of SPSA, at least 1.
        spsa_steps: Of SPSA, at least 0.

    Raises:
        OptionsError: A number is out of range.
    """

    steps: int = 40
    targets: int = 9
    queries: int = 5000
    samples: int = 64
    spsa_steps: int = 20

    def __post_init__(self) -> None:
        low = {"steps": 0, "targets": 1, "queries": 1, "samples": 1, "spsa_steps": 0}
        for name, least in low.items():
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise OptionsError(f"{name}={value} is out of range: it must be at least {least}.")

    def name(self, kind: str) -> str:
        """What a row calls an attack with this budget, such as `"pgd40-cut"`."""
        if kind in ("apgd-ce", "apgd-t"):
            return f"apgd{self.steps}{kind.removeprefix('apgd')}"
        if kind == "square":
            return f"square{self.queries}"
        if kind == "spsa":
            return f"spsa{self.spsa_steps}"
        return f"pgd{self.steps}" + ("" if kind == "pgd" else f"-{kind}")


@dataclasses.dataclass(frozen=True)
class Row:
    """One accuracy, as plugins/feedback-adapter-cnnf/results/robustness.json has it.

    Args:
        readout: `"last"` or `"avg"`.
        iteration: Which iterate, for `"last"`.
        attack: `"none"` (clean); an attack, as `"pgd40-cut"`, alone; `"after-pgd40-cut"`: what
            withstood it and all before it; or `"worst"`: what withstood every attack at this
            eps and all smaller ones.
        eps: Largest change of a pixel, in [0, 1] units.
        accuracy: In percent.
        images: How many.
        seed: Of the attacks' randomness.
    """

    readout: str
    iteration: int | None
    attack: str
    eps: float
    accuracy: float
    images: int
    seed: int


def views_of(model: CNNF, x: Tensor, readout: str, kind: str = "pgd") -> Tensor:
    """(views, batch, classes): logits that an attack's loss is a mean over.

    Args:
        model: A CNN-F.
        x: Images in [-1, 1].
        readout: `"avg"` (iterations 0 to the model's own T), or an iteration's number.
        kind: One of `KINDS`; those that differ in their loss or search see the same views.
    """
    if kind == "first-pass":
        return model.unroll(x, 0).logits
    smooth = WIDTH if kind == "bpda" else 0.0
    steps = _steps(model, readout)
    logits = model.unroll(x, steps, cut=kind == "cut", smooth=smooth).logits
    if kind == "all-iterates":
        return logits
    return logits.mean(0, keepdim=True) if readout == "avg" else logits[-1:]


def attack(
    model: CNNF,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    *,
    readouts: Sequence[str] = ("0", "1", "avg"),
    kinds: Sequence[str] = KINDS,
    source: CNNF | None = None,
    budget: Budget | None = None,
    each: bool = False,
    seed: int = 0,
    batch: int = 100,
    report: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Accuracies of each read-out, clean and under each attack on it.

    Args:
        model: A CNN-F; its parameters are left alone.
        images: (N, channels, height, width) in [-1, 1].
        labels: (N) class numbers.
        eps: Largest changes of a pixel in [0, 1] units, each above 0 and at most 1.
        readouts: Of `views_of`. At `"0"` the kinds that differ in feedback only are left out.
        kinds: Of `KINDS`, in the order in which they are tried.
        source: If given, images that fool its first pass are tried too ("transfer").
        budget: How much work an attack may do.
        each: Try each attack on all images; otherwise on those that still withstand, which
            leads to the same worst case at a fraction of the time.
        seed: Of everything random.
        batch: Images at a time.
        report: Called with each row when it is known.

    Raises:
        InputError: The images aren't in [-1, 1].
        OptionsError: An option is out of range.
    """
    budget = budget or Budget()
    _check(eps, kinds, batch, images)
    start = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    start = start.to(images)
    rows: list[Row] = []

    def add(readout: str, name: str, radius: float, right: Tensor) -> None:
        iteration = None if readout == "avg" else int(readout)
        percent = round(100 * right.double().mean().item(), 2)
        kind = "avg" if iteration is None else "last"
        rows.append(Row(kind, iteration, name, radius, percent, len(right), seed))
        report(rows[-1])

    def attacked(net: CNNF, readout: str, kind: str, radius: float, some: Tensor) -> Tensor:
        parts = [
            _fool(net, images[r], labels[r], start[r], 2 * radius, readout, kind, budget, seed)
            for r in some.split(batch)
        ]
        return torch.cat(parts)

    def right(x: Tensor, y: Tensor, readout: str) -> Tensor:
        with torch.no_grad():
            found = [views_of(model, part, readout)[0].argmax(-1) for part in x.split(batch)]
        return torch.cat(found) == y

    everything = torch.arange(len(images), device=images.device)
    flags = {p: p.requires_grad for p in (*model.parameters(), *(source or model).parameters())}
    try:
        for parameter in flags:
            parameter.requires_grad_(False)
        foreign = (
            {e: attacked(source, "0", "transfer", e, everything) for e in eps} if source else {}
        )
        for readout in readouts:
            _steps(model, readout)
            standing = right(images, labels, readout)
            add(readout, "none", 0.0, standing)
            for radius in sorted(set(eps)):
                tried = [k for k in kinds if readout != "0" or k not in OF_FEEDBACK] or ["pgd"]
                for kind in [*tried, *(["transfer"] if source else [])]:
                    some = everything if each else everything[standing]
                    hits = torch.zeros_like(standing)
                    if len(some):
                        if kind == "transfer":
                            worst = foreign[radius][some]
                        else:
                            worst = attacked(model, readout, kind, radius, some)
                        hits[some] = right(worst, labels[some], readout)
                    standing = standing & hits
                    name = budget.name(kind)
                    add(readout, name if each else f"after-{name}", radius, hits)
                add(readout, "worst", radius, standing)
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    return rows


def _fool(
    model: CNNF,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    eps: float,
    readout: str,
    kind: str,
    budget: Budget,
    seed: int,
) -> Tensor:
    """The worst images that one attack finds, `eps` being in the units of `x`."""
    averaged = kind == "all-iterates" and readout == "avg"
    objective = Objective(
        lambda images: views_of(model, images, readout, kind),
        y,
        loss="margin" if kind in ("spsa", "square") else "ce",
        verdict=(lambda views: views.mean(0)) if averaged else (lambda views: views[-1]),
        surrogate=kind in ("first-pass", "transfer"),
    )
    if kind == "apgd-ce":
        return apgd(objective, x, start, eps, budget.steps)
    if kind == "apgd-t":
        return apgd_targeted(objective, x, start, eps, budget.steps, budget.targets)
    if kind == "spsa":
        return spsa(objective, x, eps, budget.spsa_steps, budget.samples, seed)
    if kind == "square":
        return square(objective, x, eps, budget.queries, seed)
    return pgd(objective, x, start, eps, budget.steps)


def _check(eps: Sequence[float], kinds: Sequence[str], batch: int, images: Tensor) -> None:
    if not eps or any(not 0 < e <= 1 for e in eps):
        raise OptionsError(f"eps={list(eps)} is out of range: each must be above 0, at most 1.")
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise OptionsError(f"kinds={list(kinds)} is not possible: {', '.join(KINDS)} are.")
    if batch < 1:
        raise OptionsError(f"batch={batch} is out of range: it must be at least 1.")
    if not len(images):
        raise OptionsError("There are no images to attack.")
    check_range(images)


def _steps(model: CNNF, readout: str) -> int:
    if readout == "avg":
        return model.steps
    if not readout.isdecimal():
        raise OptionsError(f"readout={readout!r} is not possible: 'avg' or an iteration, as '1'.")
    return int(readout)
