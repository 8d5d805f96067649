"""Attacks that aim at the read-out that is reported, through the whole unroll.

The published evaluation scored `avg` under attacks on `last`, which an attacker need not do.
An accuracy under attack is an upper bound: a better attack can only lower it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_cnnf.loop import CNNF
from feedback_adapter.errors import OptionsError

__all__ = ["KINDS", "Row", "attack", "logits_of", "pgd"]

KINDS = ("pgd", "first-pass", "cut", "all-iterates")
"""What the loss sees: the read-out, the first pass only, the unroll without gradients through
feedback, or the mean over all iterates."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One accuracy, as docs/results/cnnf-robustness.json has it.

    Args:
        readout: `"last"` or `"avg"`.
        iteration: Which iterate, for `"last"`.
        attack: `"pgd40"` for 40 steps of the kind `"pgd"`, `"pgd40-cut"` and so on for others,
            `"pgd40-transfer"`, `"none"` (clean), or `"worst"`: an image counts as right only
            if it withstood every attack at this eps and all smaller ones.
        eps: Largest change of a pixel, in [0, 1] units.
        accuracy: In percent.
        images: How many.
        seed: Of the attack's random start.
    """

    readout: str
    iteration: int | None
    attack: str
    eps: float
    accuracy: float
    images: int
    seed: int


def pgd(
    losses_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    start: Tensor,
    eps: float,
    steps: int = 40,
) -> Tensor:
    """Projected gradient ascent in the maximum norm; returns the worst images it met.

    Step sizes don't depend on `steps` (eps / 4, after the 20th eps / 16), and the best point
    so far is kept, so that more steps never make a weaker attack.

    Args:
        losses_of: Takes images, returns losses (batch) to increase and whether each image is
            misclassified (batch, bool).
        x: Clean images in [-1, 1].
        start: Where to start, in [-1, 1] times eps, shaped as `x`.
        eps: Largest change, in the units of `x`.
        steps: At least 0; 0 tries the start alone.
    """
    low, high = (x - eps).clamp(min=-1), (x + eps).clamp(max=1)
    adv = torch.minimum(torch.maximum(x + eps * start, low), high)
    best, most = x, torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(steps + 1):
        adv = adv.detach().requires_grad_()
        losses, wrong = losses_of(adv)
        score = losses.detach() + 1e6 * wrong  # wrong beats right, then the larger loss
        better = (score > most).view(-1, *[1] * (x.ndim - 1))
        most, best = torch.maximum(score, most), torch.where(better, adv.detach(), best)
        if step < steps:
            (gradient,) = torch.autograd.grad(losses.sum(), adv)
            size = eps / 4 if step < 20 else eps / 16
            adv = torch.minimum(torch.maximum(adv + size * gradient.sign(), low), high)
    return best.detach()


def logits_of(model: CNNF, x: Tensor, readout: str, kind: str = "pgd") -> Tensor:
    """(kinds of logits, batch, classes): what an attack's loss is a mean over.

    Args:
        model: A CNN-F.
        x: Images in [-1, 1].
        readout: `"avg"` (iterations 0 to the model's own T), or an iteration's number.
        kind: One of `KINDS`.
    """
    if kind == "first-pass":
        return model.unroll(x, 0).logits
    logits = model.unroll(x, _steps(model, readout), cut=kind == "cut").logits
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
    steps: int = 40,
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
        readouts: Of `logits_of`. For `"0"`, all kinds are the same and one is run.
        kinds: Of `KINDS`.
        source: If given, images that fool its first pass are tried too ("transfer").
        steps: Of PGD, at least 0.
        seed: Of the random start.
        batch: Images at a time.
        report: Called with each row when it is known.

    Raises:
        OptionsError: An option is out of range.
    """
    if not eps or any(not 0 < e <= 1 for e in eps):
        raise OptionsError(f"eps={list(eps)} is out of range: each must be above 0, at most 1.")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise OptionsError(f"kinds={list(kinds)} is not possible: {', '.join(KINDS)} are.")
    if steps < 0 or batch < 1:
        raise OptionsError(f"steps={steps}, batch={batch}: at least 0 and 1 are possible.")
    if not len(images):
        raise OptionsError("There are no images to attack.")
    generator = torch.Generator().manual_seed(seed)
    start = (torch.rand(images.shape, generator=generator) * 2 - 1).to(images.device)
    rows: list[Row] = []
    name = f"pgd{steps}"

    def right(x: Tensor, readout: str) -> Tensor:
        with torch.no_grad():
            parts = [logits_of(model, part, readout)[0].argmax(-1) for part in x.split(batch)]
        return torch.cat(parts) == labels

    def fool(net: CNNF, readout: str, kind: str, radius: float) -> Tensor:
        def losses_of(adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            logits = logits_of(net, adv, readout, kind)
            flat, targets = logits.flatten(0, 1), y.repeat(len(logits))
            losses = F.cross_entropy(flat, targets, reduction="none").view(len(logits), -1)
            return losses.mean(0), logits[-1].argmax(-1) != y

        triples = zip(*(t.split(batch) for t in (images, labels, start)), strict=True)
        return torch.cat(
            [pgd(lambda a, y=y: losses_of(a, y), x, s, 2 * radius, steps) for x, y, s in triples]
        )

    def add(readout: str, kind: str, radius: float, hits: Tensor) -> None:
        last = readout != "avg"
        percent = round(100 * hits.float().mean().item(), 2)
        row = Row(
            "last" if last else "avg", int(readout) if last else None,
            kind, radius, percent, len(hits), seed,
        )  # fmt: skip
        rows.append(row)
        report(row)

    flags = {p: p.requires_grad for p in (*model.parameters(), *(source or model).parameters())}
    try:
        for parameter in flags:
            parameter.requires_grad_(False)
        foreign = {e: fool(source, "0", "pgd", e) for e in sorted(set(eps))} if source else {}
        for readout in readouts:
            _steps(model, readout)
            standing = right(images, readout)
            add(readout, "none", 0.0, standing)
            for radius in sorted(set(eps)):
                tried = [kind for kind in kinds if readout != "0" or kind == kinds[0]]
                for kind in tried:
                    hits = right(fool(model, readout, kind, radius), readout)
                    standing = standing & hits
                    add(readout, name if kind == "pgd" else f"{name}-{kind}", radius, hits)
                if source:
                    hits = right(foreign[radius], readout)
                    standing = standing & hits
                    add(readout, f"{name}-transfer", radius, hits)
                add(readout, "worst", radius, standing)
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    return rows


def _steps(model: CNNF, readout: str) -> int:
    if readout == "avg":
        return model.steps
    if not readout.isdecimal():
        raise OptionsError(f"readout={readout!r} is not possible: 'avg' or an iteration, as '1'.")
    return int(readout)
