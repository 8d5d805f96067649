"""Choosing where a pivot sits, and how far it goes, from what is known alone.

Feedback-prop (CVPR 2018) leaves the choice of pivots to future work. Here part of what is known
of each image is hidden, the rest is given to a refinement, and the setting that best predicts
what was hidden is chosen. Nothing needs to be known of the unknown outputs.

Settings run a race (Maron and Moore, "Hoeffding Races", NIPS 1993): after each batch of images,
those that are clearly behind drop out. With a tolerance of 1, the latest of the sites that can't be
told from the best is chosen, since its tail costs least (the one-standard-error rule of Breiman et
al., "Classification and Regression Trees", 1984, section 3.4.3).
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError, OptionsError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Outputs
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import SiteInfo
from feedback_adapter.strategies.hiding import Criterion, hide, likelihood, precision

__all__ = ["Choice", "Search", "Trial", "choose"]

BEHIND = 3.0
"""So many standard errors below the best, a setting leaves the race."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting that was tried on all images.

    Args:
        pivot: Name of the site.
        step_size: In the unit of the strategy's options.
        steps: Number of steps.
        gain: How much better the hidden part of the evidence is predicted than by the plain
            model: mean average precision in percent, or nats per hidden variable.
        error: Standard error, over labels or images, of how far that is below the best trial's
            gain; infinite where there is one only.
        cost: Multiply-accumulates of the iterations' forward passes, in plain passes.
    """

    pivot: str
    step_size: float
    steps: int
    gain: float
    error: float
    cost: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """What `Adapter.choose_pivots` chose. Use it as `refine(..., **choice.arguments)`.

    Args:
        strategy: The strategy that it was chosen for.
        criterion: What `gain` is: `"precision"` or `"likelihood"`.
        trials: All settings that ran to the end, the best first.
        chosen: The best trial at the site that was chosen: the best one, or the latest of those
            within the tolerance.
        seconds: How long the choice took.
        options: Other options that it was chosen with.
    """

    strategy: str
    criterion: str
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


@dataclasses.dataclass(frozen=True)
class Search:
    """What `choose` tries, and how.

    Args:
        steps: Most steps to try, at least 1; every number up to it is.
        step_sizes: Step sizes to try, at least one.
        hide: Share of the known variables that is hidden, in (0, 1).
        criterion: `"precision"`: the gain in mean average precision over the images.
            `"likelihood"`: the gain in likelihood. `None`: precision where it is defined.
        batch: Images at a time, at least 1.
        tolerance: A site is as good as the best one if its gain is less by at most so many
            standard errors, at least 0.
        seed: Of what is hidden.

    Raises:
        OptionsError: A value is out of its range.
    """

    steps: int
    step_sizes: Sequence[float]
    hide: float
    criterion: Literal["precision", "likelihood"] | None
    batch: int
    tolerance: float
    seed: int

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps >= 1, "at least 1"),
            "step_sizes": (len(self.step_sizes) > 0, "at least one"),
            "hide": (0 < self.hide < 1, "between 0 and 1"),
            "criterion": (
                self.criterion in (None, "precision", "likelihood"),
                "'precision', 'likelihood' or None",
            ),
            "batch": (self.batch >= 1, "at least 1"),
            "tolerance": (self.tolerance >= 0, "at least 0"),
        }
        for name, (fine, possible) in rules.items():
            if not fine:
                value = getattr(self, name)
                raise OptionsError(f"{name}={value!r} is out of range: it must be {possible}.")


def choose(
    refine: Callable[..., Refinement],
    strategy: str,
    sites: Sequence[SiteInfo],
    evidence: Evidence,
    plain: Outputs,
    search: Search,
    options: Mapping[str, Any],
) -> Choice:
    """Try settings and choose one. See `Adapter.choose_pivots`.

    Args:
        refine: Refines some of the images, by index: `(rows, evidence, **arguments)`.
        strategy: Name of the strategy.
        sites: Where to try a pivot.
        evidence: What is known, bound.
        plain: The plain model's outputs.
        search: What to try.
        options: Other options of the strategy.

    Raises:
        EvidenceError: No image has two known variables, so that nothing can be hidden, or the
            criterion isn't defined for what is known.
    """
    started = time.perf_counter()
    options = {"patience": None, "keep": "last", **options}  # so that steps are all taken
    hidden = hide(evidence, plain, search.hide, search.seed)
    if not hidden.count:
        raise EvidenceError(
            "Nothing can be hidden: choosing pivots needs images of which at least two variables "
            "are known. Name the pivots instead, or pass pivots='auto'."
        )
    ranked = precision(hidden) is not None
    if search.criterion == "precision" and not ranked:
        raise EvidenceError(
            "criterion='precision' needs labels that are known to be present in one image and "
            "absent in another. Pass more images, or criterion='likelihood'."
        )
    criterion = search.criterion or ("precision" if ranked else "likelihood")
    device = next(iter(plain.values())).device
    rows = torch.arange(plain.batch, device=device)
    race: dict[tuple[SiteInfo, float], list[dict[str, Tensor]]] = {
        setting: [] for setting in itertools.product(sites, search.step_sizes)
    }
    trials: list[Trial] = []
    for part in rows.split(search.batch):
        told = hidden.take(part)
        for (site, size), traces in race.items():
            result = refine(
                part, told, strategy=strategy, pivots=site, step_size=size, steps=search.steps,
                trace=True, **options,
            )  # fmt: skip
            assert result.trace is not None, "it was asked for"
            traces.append(result.trace)
        done = hidden.take(rows[: int(part[-1]) + 1])
        measure = precision(done) if criterion == "precision" else likelihood(done)
        if measure is None:
            continue  # too few images so far to rank them
        trials = _trials(race, measure, plain, search.steps)
        ahead = {
            (trial.pivot, trial.step_size)
            for trial in trials
            if not trials[0].gain - trial.gain > BEHIND * trial.error
        }
        race = {s: traces for s, traces in race.items() if (s[0].name, s[1]) in ahead}
    return Choice(
        strategy, criterion, tuple(trials), _latest(trials, sites, search.tolerance),
        time.perf_counter() - started, options,
    )  # fmt: skip


def _trials(
    race: Mapping[tuple[SiteInfo, float], Sequence[Mapping[str, Tensor]]],
    measure: Criterion,
    plain: Outputs,
    steps: int,
) -> list[Trial]:
    """A trial for every number of steps of every setting, the best first."""
    settings = [(*setting, step) for setting in race for step in range(1, steps + 1)]
    scores: list[Tensor] = []
    for site, size, step in settings:
        traces = race[site, size]
        logits = {name: torch.cat([trace[name][step] for trace in traces]) for name in plain}
        scores.append(measure(Outputs(logits, plain.specs)))
    table = torch.stack(scores)
    gains = table.mean(1)
    behind = table[gains.argmax()] - table
    units = behind.shape[1]  # of a single one nothing can be told apart
    errors = behind.std(1) / units**0.5 if units > 1 else torch.full_like(gains, torch.inf)
    trials = [
        Trial(site.name, size, step, gain, error, site.tail_cost * step)
        for (site, size, step), gain, error in zip(
            settings, gains.tolist(), errors.tolist(), strict=True
        )
    ]
    return sorted(trials, key=lambda trial: -trial.gain)


def _latest(trials: Sequence[Trial], sites: Sequence[SiteInfo], tolerance: float) -> Trial:
    """The best trial at the site with the cheapest tail of those as good as the best."""
    costs = {site.name: site.tail_cost for site in sites}
    best = trials[0].gain
    close = [trial for trial in trials if not best - trial.gain > tolerance * trial.error]
    pivot = min(close, key=lambda trial: costs[trial.pivot]).pivot
    return next(trial for trial in trials if trial.pivot == pivot)
