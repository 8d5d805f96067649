"""Choosing where a pivot sits, and how far it goes, from what is known alone.

Feedback-prop (CVPR 2018) leaves the choice of pivots to future work. Here part of what is known
of each image is hidden, the rest is given to a refinement, and the setting that best predicts
what was hidden is chosen. Nothing needs to be known of the unknown outputs.

Settings run a race (Maron and Moore, "Hoeffding Races", NIPS 1993): after each batch of images,
those that are clearly behind drop out. With a tolerance of 1, the latest of the sites that are as
good as the best is chosen, since its tail costs least (the one-standard-error rule of Breiman et
al., "Classification and Regression Trees", 1984, section 3.4.3).
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from feedback_adapter import guard, plugins
from feedback_adapter.batches import in_batches, split
from feedback_adapter.defaults import pick, takes
from feedback_adapter.errors import EvidenceError, OptionsError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.hookspecs import StrategySpec
from feedback_adapter.options import above, at_least, check, each, one_of, optional, whole, within
from feedback_adapter.outputs import Outputs
from feedback_adapter.pivot_search.hidden import Criterion, likelihood, precision
from feedback_adapter.pivot_search.hidden import hide as hide_part
from feedback_adapter.prepared import Prepared
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import Inputs, Site, SiteInfo, frozen, named_sites
from feedback_adapter.sites.auto import on_two, spread
from feedback_adapter.strategies.base import Facts

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter

BEHIND = 3.0
"""So many standard errors below the best, a setting leaves the race."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting that was tried on all images.

    Args:
        pivot: Name of the site.
        step_size: In the unit of the strategy's options.
        steps: Number of steps.
        gain: How much better the hidden part of the evidence is predicted than by the
            unrefined model: mean average precision in percent, or nats per hidden variable.
        error: Standard error, over labels or images, of how far that is below the best trial's
            gain; infinite where there is one only.
        cost: Multiply-accumulates of the iterations' forward passes, in whole passes.
    """

    pivot: str
    step_size: float
    steps: int
    gain: float
    error: float
    cost: float


@dataclasses.dataclass(frozen=True, repr=False)
class Choice:
    """What `choose_pivots` chose. Use it as `refine(..., **choice.arguments)`.

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

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        unit = "% mean average precision" if self.criterion == "precision" else " nats"
        return f"Choice({given}: {self.chosen.gain:+.3g}{unit}, of {len(self.trials)} trials)"


@dataclasses.dataclass(frozen=True)
class Search:
    """What `race` tries, and how; see `choose_pivots`."""

    steps: int
    step_sizes: Sequence[float]
    hide: float
    criterion: Literal["precision", "likelihood"] | None
    batch: int
    tolerance: float
    seed: int

    def __post_init__(self) -> None:
        check(
            self,
            {
                "steps": whole(1),
                "step_sizes": each(above(0)),
                "hide": within(0, 1, ends="()"),
                "criterion": optional(one_of("precision", "likelihood")),
                "batch": whole(1),
                "tolerance": at_least(0),
                "seed": whole(0, 2**63 - 1),
            },
        )


def choose_pivots(
    adapter: Adapter,
    images: Any,
    evidence: Evidence,
    *,
    strategy: str | None = None,
    pivots: Sequence[str | Site] | None = None,
    steps: int = 20,
    step_sizes: Sequence[float] | None = None,
    hide: float = 0.5,
    criterion: Literal["precision", "likelihood"] | None = None,
    batch: int = 64,
    tolerance: float = 0.0,
    seed: int = 0,
    **overrides: Any,
) -> Choice:
    """Choose the pivot, step size and number of steps that best predict part of what is known.

    Part of what is known of each image is hidden, the rest refines, and the setting that
    predicts the hidden part best is chosen. The unknown outputs play no part. Settings that
    are clearly behind after some batches aren't tried on the others.

    Args:
        adapter: The model.
        images: As for `refine`; about a thousand tell sites apart that differ by a few tenths
            of a point.
        evidence: What is known of them, at least two variables of an image.
        strategy: Name of a strategy that has the options `step_size`, `steps` and `trace`. By
            default the checkpoint's if it has them, else the one that suits best.
        pivots: Sites to try; by default six from early to late.
        steps: Most steps to try; every smaller number is tried with it.
        step_sizes: Step sizes to try; by default 0.1, 0.3, 1 and 3 times that of the
            options that `refine` would use.
        hide: Share of what is known of an image that is hidden, in (0, 1).
        criterion: What is better: a higher mean average precision of the hidden labels
            over the images (`"precision"`), or a higher `"likelihood"`; by default
            precision where there are labels that are present in one image and absent in
            another.
        batch: Images refined at a time.
        tolerance: The latest site, whose tail is the cheapest, is chosen of those whose gain is
            at most so many standard errors below the best; 0 takes the best.
        seed: Seed of the random choice of what is hidden.
        **overrides: Other options of the strategy, by name, e.g. `solver="adam"`.

    Returns:
        The choice: `refine(images, evidence, **choice.arguments)`.

    Raises:
        EvidenceError: No image has two known variables, or the criterion isn't defined for what
            is known.
        OptionsError: A value is out of its range, or the strategy takes no steps.
    """
    inputs = adapter.inputs(images)
    bound = guard.bind(evidence, adapter.outputs, inputs.batch)
    spec = _strategy(adapter, inputs, bound, strategy, overrides)
    own = adapter.defaults.options_for(spec.name, spec.options, None, overrides)
    if step_sizes is None:
        step_sizes = [share * own.step_size for share in (0.1, 0.3, 1.0, 3.0)]
    search = Search(steps, step_sizes, hide, criterion, batch, tolerance, seed)
    # so that all steps are taken and the last one counts
    fixed = {"patience": None, "keep": "last"}
    possible = {field.name for field in dataclasses.fields(spec.options)}
    options = {**{n: v for n, v in fixed.items() if n in possible}, **overrides}
    if pivots is None or (isinstance(pivots, str) and pivots == "auto"):
        with frozen(adapter.model), torch.no_grad():
            sites = on_two(inputs, lambda some: spread(adapter.model, some, adapter.read, 6))
    else:
        measured = {Site.of(site): site for site in on_two(inputs, adapter.sites)}
        wanted = named_sites(adapter.model, pivots)
        sites = [measured.get(site, SiteInfo(*site.key)) for site in wanted]
    unrefined = in_batches(
        lambda rows: adapter.unrefined(inputs.take(rows)),
        inputs.batch,
        search.batch,
        device=inputs.images.device,
    )

    def prepare(rows: Tensor) -> Prepared:
        return adapter.prepare(inputs.take(rows), pivots=sites)

    return race(prepare, adapter.refine, spec.name, sites, bound, unrefined, search, options)


def _strategy(
    adapter: Adapter,
    inputs: Inputs,
    bound: Evidence,
    name: str | None,
    overrides: Mapping[str, Any],
) -> StrategySpec:
    """The strategy to search with: it must take steps of a size, and say what each came to."""
    needed = ("step_size", "steps", "trace")
    specs = plugins.plugins().all("strategies")
    if name is None or (isinstance(name, str) and name == "auto"):
        facts = Facts(adapter.model, adapter.outputs, inputs, bound, adapter.priors)
        found = pick(facts, adapter.defaults, specs, None, {**dict.fromkeys(needed), **overrides})
        return plugins.strategy(max(found, key=lambda name: len(found[name])))
    spec = plugins.strategy(name)
    if not takes(spec, None, needed):
        able = ", ".join(repr(s.name) for s in specs if takes(s, None, needed))
        raise OptionsError(
            f"strategy={name!r} takes no steps of a size that could be chosen: {able} do."
        )
    return spec


def race(
    prepare: Callable[[Tensor], Prepared],
    refine: Callable[..., Refinement],
    strategy: str,
    sites: Sequence[SiteInfo],
    evidence: Evidence,
    unrefined: Outputs,
    search: Search,
    options: Mapping[str, Any],
) -> Choice:
    """Try settings and choose one. See `choose_pivots`.

    `prepare` runs the forward pass of some of the images once, by index (k,), and `refine` refines
    what was prepared, as `Adapter.refine` does. The evidence is bound.
    """
    started = time.perf_counter()
    hidden = hide_part(evidence, unrefined, search.hide, search.seed)
    given = f"strategy={strategy!r}, pivots={[site.name for site in sites]}, {unrefined!r}"
    if not hidden.count:
        raise EvidenceError(
            "Nothing can be hidden: choosing pivots needs images of which at least two variables "
            f"are known. Name the pivots instead, or pass pivots='auto'. Given: {given}."
        )
    ranked = precision(hidden) is not None
    if search.criterion == "precision" and not ranked:
        raise EvidenceError(
            "criterion='precision' needs labels that are known to be present in one image and "
            f"absent in another. Pass more images, or criterion='likelihood'. Given: {given}."
        )
    criterion = search.criterion or ("precision" if ranked else "likelihood")
    device = next(iter(unrefined.values())).device
    running: dict[tuple[SiteInfo, float], list[dict[str, Tensor]]] = {
        setting: [] for setting in itertools.product(sites, search.step_sizes)
    }
    trials: list[Trial] = []
    for rows in split(unrefined.batch, search.batch, device):
        part, prepared = hidden.take(rows), prepare(rows)
        for (site, size), traces in running.items():
            result = refine(
                prepared, part, strategy=strategy, pivots=site, step_size=size, steps=search.steps,
                trace=True, **options,
            )  # fmt: skip
            assert result.trace is not None, "it was asked for"
            traces.append(result.trace)
        done = hidden.take(torch.arange(int(rows[-1]) + 1, device=device))
        measure = precision(done) if criterion == "precision" else likelihood(done)
        if measure is None:
            continue  # too few images so far to rank them
        trials = _trials(running, measure, unrefined, search.steps)
        ahead = {
            (trial.pivot, trial.step_size)
            for trial in trials
            if not trials[0].gain - trial.gain > BEHIND * trial.error
        }
        running = {s: traces for s, traces in running.items() if (s[0].name, s[1]) in ahead}
    return Choice(
        strategy, criterion, tuple(trials), _latest(trials, sites, search.tolerance),
        time.perf_counter() - started, options,
    )  # fmt: skip


def _trials(
    running: Mapping[tuple[SiteInfo, float], Sequence[Mapping[str, Tensor]]],
    measure: Criterion,
    unrefined: Outputs,
    steps: int,
) -> list[Trial]:
    """A trial for every number of steps of every setting, the best first."""
    settings = [(*setting, step) for setting in running for step in range(1, steps + 1)]
    scores: list[Tensor] = []
    for site, size, step in settings:
        traces = running[site, size]
        logits = {name: torch.cat([trace[name][step] for trace in traces]) for name in unrefined}
        scores.append(measure(Outputs(logits, unrefined.specs)))
    table = torch.stack(scores)
    gains = table.mean(1)
    behind = table[gains.argmax()] - table
    units = behind.shape[1]  # nothing is known of the spread of a single one
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
