"""Choosing where a pivot sits, and how far it goes, from what is known alone.

Feedback-prop (CVPR 2018) leaves the choice of pivots to future work. Here part of what is known
of each image is hidden, the rest is given to a refinement, and the setting that best predicts
what was hidden is chosen. Nothing needs to be known of the unknown outputs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import Site

__all__ = ["Choice", "Hidden", "Trial", "choose"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Args:
        pivot: Name of the site.
        step_size: In the unit of the strategy's options.
        steps: Number of steps.
        gain: How much likelier the hidden part of the evidence became, in nats per hidden
            variable; negative where the refinement made it less likely.
        cost: Multiply-accumulates of the iterations' forward passes, in plain passes.
    """

    pivot: str
    step_size: float
    steps: int
    gain: float
    cost: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """What `Adapter.choose_pivots` chose. Use it as `refine(..., **choice.arguments)`.

    Args:
        strategy: The strategy that it was chosen for.
        trials: All settings tried, the best first.
        chosen: The cheapest of those that are as good as the best.
        seconds: How long the choice took.
        options: Other options that it was chosen with.
    """

    strategy: str
    trials: tuple[Trial, ...]
    chosen: Trial
    seconds: float
    options: Mapping[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `Adapter.refine`."""
        chosen = self.chosen
        size = {"step_size": chosen.step_size, "steps": chosen.steps}
        return {"strategy": self.strategy, "pivots": chosen.pivot, **size, **self.options}


class Hidden(Evidence):
    """Evidence without some of its variables: their logits stay what they were.

    Works with any evidence, since all it needs is the loss and what is known.

    Args:
        evidence: The whole evidence, bound.
        plain: The plain model's outputs.
        hidden: `{output: (batch, labels) bool}`, which variables to hide.
    """

    def __init__(self, evidence: Evidence, plain: Outputs, hidden: dict[str, Tensor]) -> None:
        self.evidence, self.plain, self.hidden = evidence, plain, hidden

    def _replaced(self, outputs: Outputs) -> Outputs:
        return outputs.replace(
            **{
                name: torch.where(mask, self.plain[name], outputs[name])
                for name, mask in self.hidden.items()
            }
        )

    def loss(self, outputs: Outputs) -> Tensor:
        """The loss of what is left, and a constant. See `Evidence.loss`."""
        return self.evidence.loss(self._replaced(outputs))

    def clamp(self, outputs: Outputs) -> Outputs:
        """See `Evidence.clamp`."""
        clamped = self.evidence.clamp(outputs)
        new = {n: torch.where(m, outputs[n], clamped[n]) for n, m in self.hidden.items()}
        return clamped.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Evidence.known`."""
        known = self.evidence.known(outputs)
        return {n: m & ~self.hidden[n] if n in self.hidden else m for n, m in known.items()}

    def take(self, images: Tensor) -> Hidden:
        """See `Evidence.take`."""
        plain = Outputs({n: v[images] for n, v in self.plain.items()}, self.plain.specs)
        hidden = {name: mask[images] for name, mask in self.hidden.items()}
        return Hidden(self.evidence.take(images), plain, hidden)

    def gain(self, outputs: Outputs) -> Tensor:
        """How much likelier the hidden variables are than in the plain model, (batch,) nats."""
        fell = self.evidence.loss(self.plain) - self.evidence.loss(outputs)
        return fell - (self.loss(self.plain) - self.loss(outputs))


def choose(
    refine: Callable[..., Refinement],
    strategy: str,
    sites: Sequence[Site],
    evidence: Evidence,
    plain: Outputs,
    *,
    steps: int,
    step_sizes: Sequence[float],
    hide: float,
    batch: int,
    tolerance: float,
    seed: int,
    options: Mapping[str, Any],
) -> Choice:
    """Try settings and choose one. See `Adapter.choose_pivots`.

    Args:
        refine: Refines some of the images, by index: `(rows, evidence, **arguments)`.
        strategy: Name of the strategy.
        sites: Where to try a pivot.
        evidence: What is known, bound.
        plain: The plain model's outputs.
        steps: Most steps to try; every number up to it is.
        step_sizes: Step sizes to try.
        hide: Share of the known variables that is hidden, in (0, 1).
        batch: Images at a time.
        tolerance: A setting is as good as the best if its gain is less by at most this share.
        seed: Of what is hidden.
        options: Other options of the strategy.

    Raises:
        EvidenceError: No image has two known variables, so that nothing can be hidden.
    """
    started = time.perf_counter()
    options = {"patience": None, "keep": "last", **options}  # so that steps are all taken
    hidden = Hidden(evidence, plain, _hidden(evidence.known(plain), hide, seed))
    count = sum(int(mask.sum()) for mask in hidden.hidden.values())
    if not count:
        raise EvidenceError(
            "Nothing can be hidden: choosing pivots needs images of which at least two variables "
            "are known. Name the pivots instead, or pass pivots='auto'."
        )
    parts = [part.to(_device(plain)) for part in torch.arange(plain.batch).split(batch)]
    evidences = [hidden.take(rows) for rows in parts]
    trials: list[Trial] = []
    for site in sites:
        for size in step_sizes:
            gains = torch.zeros(steps + 1, dtype=torch.float64)
            for rows, part in zip(parts, evidences, strict=True):
                result = refine(
                    rows, part, strategy=strategy, pivots=site, step_size=size, steps=steps,
                    trace=True, **options,
                )  # fmt: skip
                assert result.trace is not None, "it was asked for"
                for step in range(steps + 1):
                    logits = {name: value[step] for name, value in result.trace.items()}
                    gain = part.gain(Outputs(logits, plain.specs))
                    gains[step] += float(gain.double().sum())
            trials += [
                Trial(site.name, size, step, float(gains[step]) / count, site.tail_cost * step)
                for step in range(1, steps + 1)
            ]
    trials.sort(key=lambda trial: -trial.gain)
    enough = trials[0].gain - tolerance * abs(trials[0].gain)
    chosen = min((t for t in trials if t.gain >= enough), key=lambda trial: trial.cost)
    return Choice(strategy, tuple(trials), chosen, time.perf_counter() - started, options)


def _device(outputs: Outputs) -> torch.device:
    """Where outputs are."""
    return next(iter(outputs.values())).device


def _hidden(known: dict[str, Tensor], share: float, seed: int) -> dict[str, Tensor]:
    """A random share of what is known of each image, never all of it."""
    generator = torch.Generator().manual_seed(seed)
    names = list(known)
    widths = [known[name].shape[1] for name in names]
    mask = torch.cat([known[name].cpu() for name in names], 1)
    order = (
        torch.where(mask, torch.rand(mask.shape, generator=generator), 2.0).argsort(1).argsort(1)
    )
    amount = mask.sum(1, keepdim=True)
    hide = (amount * share).round().clamp(min=1).minimum(amount - 1).clamp(min=0)
    chosen = (order < hide) & mask
    parts = chosen.split(widths, 1)
    return {name: part.to(known[name].device) for name, part in zip(names, parts, strict=True)}
