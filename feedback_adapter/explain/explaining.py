"""Refining an image again with some of its evidence, to find what each piece of it did."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from feedback_adapter.errors import (
    EvidenceError,
    FeedbackAdapterError,
    InputError,
    OptionsError,
    SiteError,
    did_you_mean,
)
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.somewhere import log_odds_of
from feedback_adapter.explain import shapley
from feedback_adapter.explain.explanation import Contribution, Explanation
from feedback_adapter.explain.where import Grid, Maps, maps_of
from feedback_adapter.names import find, place
from feedback_adapter.outputs import Output, Outputs
from feedback_adapter.sites import Inputs, Site, Tail, frozen

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter
    from feedback_adapter.refinement import Refinement

EXACT = 10
"""With at most so many pieces of evidence Shapley values are exact: at most 1,024 refinements."""

ALL_BUT_SURE = 1e-9
"""How near to 0 or 1 the mean over a map's pixels can get, so that its log-odds are finite."""


class MissingCaptumError(FeedbackAdapterError, ImportError):
    """captum isn't installed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What `Adapter.refine` was asked: what it takes to refine an image again.

    The evidence is in the user's words; the options are those of each strategy, by its name.
    """

    adapter: Adapter
    inputs: Inputs
    evidence: Evidence
    pivots: tuple[Site, ...]
    options: Mapping[str, Any]

    def take(self, rows: Tensor) -> Asked:
        """The same for some of the images, by index (k,)."""
        inputs, evidence = self.inputs.take(rows), self.evidence.take(rows)
        return dataclasses.replace(self, inputs=inputs, evidence=evidence)


def explain(
    result: Refinement, label: Any, image: int, output: str | None, orders: int
) -> Explanation:
    """Explain why a prediction moved. See `Refinement.explain`."""
    output, column = can_explain(result.outputs_before.specs, label, output)
    if not (isinstance(orders, int) and orders >= 2):
        raise OptionsError(f"orders={orders!r:.80} must be a whole number from 2 on.")
    if result.asked is None:
        raise InputError(
            "This result doesn't keep what it takes to explain it. Ask for it: "
            "adapter.refine(images, evidence, explainable=True). Results that were joined can "
            "only be explained before that."
        )
    if not (isinstance(image, int) and -len(result) <= image < len(result)):
        raise InputError(f"There is no image {image!r:.80}: the result has {len(result)} images.")
    image %= len(result)
    again = _Again(result, image, output, column)
    again.check(result, image)
    count = len(again.names)
    every = frozenset(range(count))
    if count <= EXACT:
        shares, errors = shapley.exact(again.value, count), torch.zeros(count, 2, device="cpu")
    else:
        shares, errors = shapley.sampled(again.value, count, orders)
    rows: list[Contribution] = []
    for item, name in enumerate(again.names):
        log_odds, probability = shares[item].tolist()
        lost = float((again.value(every) - again.value(every - {item}))[0])
        rows.append(Contribution(name, log_odds, probability, float(errors[item, 0]), lost))
    maps, no_maps = again.maps()
    return Explanation(
        image=image,
        output=again.output,
        label=again.specs[again.output].labels[again.column],
        strategy=again.strategy,
        before=float(again.value(frozenset())[0]),
        after=float(again.value(every)[0]),
        contributions=tuple(sorted(rows, key=lambda row: -abs(row.log_odds))),
        refinements=again.value.cache_info().currsize - 1,
        maps=maps,
        no_maps=no_maps,
        photo=None if result.images is None else result.images[image],
    )


class _Again:
    """One image of a result that is refined again with some of its evidence."""

    def __init__(self, result: Refinement, image: int, output: str, column: int) -> None:
        assert result.asked is not None, "explain has checked it"
        asked = result.asked.take(torch.tensor([image], device=result.steps.device))
        self.output, self.column, self.specs = output, column, result.outputs_before.specs
        self.adapter, self.evidence = asked.adapter, asked.evidence
        self.strategy = result.strategies[image]
        self.options = asked.options[self.strategy]
        self.prepared = asked.adapter.prepare(asked.inputs, pivots=asked.pivots)
        self.names = self.evidence.items(self.specs)
        self.value = functools.cache(self._value)

    def score(self, outputs: Outputs) -> Tensor:
        """The label's log-odds, (batch,), in nats."""
        logits, spec = outputs[self.output], self.specs[self.output]
        if spec.kind == "map":
            mean = spec.probabilities(logits)[:, self.column].flatten(1).mean(1)
            return mean.clamp(ALL_BUT_SURE, 1 - ALL_BUT_SURE).logit()
        return log_odds_of(logits, self.column, spec)

    def check(self, result: Refinement, image: int) -> None:
        """Refuse to explain what isn't the movement that the result has.

        Raises:
            EvidenceError: The label is certain, or nothing is known of the image.
            InputError: The image refined by itself gives something else.
        """
        spec = self.specs[self.output]
        label = spec.labels[self.column]
        if not self.names:
            raise EvidenceError(f"Nothing is known of image {image}, so nothing moved {label!r}.")
        certain = [] if spec.kind == "map" else self.evidence.bind(self.specs, 1).certain()
        if any(not fact.value[0, self.column].isnan() for fact in certain
               if fact.output == self.output):  # fmt: skip
            raise EvidenceError(
                f"{label!r} is told of image {image}, so it is what was told, whatever else is "
                "known. Explain a label that isn't told."
            )
        own = float(
            self._numbers(result.outputs_after.take(torch.tensor([image], device="cpu")))[0]
        )
        now = float(self.value(frozenset(range(len(self.names))))[0])
        margin = 10 * torch.finfo(result.outputs_after[self.output].dtype).eps ** 0.5
        if not abs(own - now) <= margin * max(1.0, abs(now)):
            raise InputError(
                f"{label!r} has log-odds of {own:.3f} in the result, but {now:.3f} where image "
                f"{image} is refined again by itself: the model or the images have changed "
                "since, or images share steps (reduction='mean')."
            )

    @torch.inference_mode(False)
    @torch.enable_grad()
    def maps(self) -> tuple[Maps | None, str]:
        """Where the network looks, and why a map is missing."""
        pivots = self.prepared.tail.pivots
        moved = all(site.name in self.activations for site in pivots)
        said = "" if moved else f"No map of the refined network: {self.strategy!r} moves no pivots."
        *others, pivot = pivots
        given = {site.name: self.activations[site.name] for site in others if moved}
        with frozen(self.adapter.model):
            tails = [self.prepared.tail.at([pivot], fixed) for fixed in (None, given)]
            before, refined = tails[0].activations[0], self.activations.get(pivot.name)
            grid = Grid.of(before.shape, self.prepared.inputs.images.shape)
            if grid is None:
                return None, f"No map of where it looks: {pivot.name!r} has no grid of places."
            scores = [functools.partial(self._follow, tail) for tail in tails]
            return maps_of(pivot.name, before, refined, (scores[0], scores[1]), grid), said

    def _follow(self, tail: Tail, activation: Tensor) -> Tensor:
        """The label's log-odds (1,) with another activation at the tail's pivot."""
        return self.score(self.adapter.read(tail.run([lambda _: activation])))

    def _value(self, chosen: frozenset[int]) -> Tensor:
        """The log-odds and the probability with some of the pieces of evidence, (2,)."""
        if not chosen:
            return self._numbers(self.adapter.unrefined(self.prepared))
        evidence = self.evidence.only(sorted(chosen), self.specs)
        whole = len(chosen) == len(self.names)
        how: dict[str, Any] = {"strategy": self.strategy, "options": self.options}
        try:
            refined = self.adapter.refine(self.prepared, evidence, **how, explainable=whole)
        except SiteError:  # nothing that these pieces say depends on the pivot
            refined = self.adapter.refine(self.prepared, evidence, strategy="clamp")
        if whole:
            self.activations = refined.activations or {}
        return self._numbers(refined.outputs_after)

    def _numbers(self, outputs: Outputs) -> Tensor:
        log_odds = self.score(outputs.replace(**{self.output: outputs[self.output].double()}))[0]
        return torch.stack([log_odds, log_odds.sigmoid()]).cpu()


def can_explain(
    specs: Mapping[str, Output], label: Any, output: str | None = None
) -> tuple[str, int]:
    """Find the output and the number of the label that a user means.

    Raises:
        EvidenceError: There is no such output or label, or it isn't clear which.
        MissingCaptumError: captum isn't installed.
    """
    if importlib.util.find_spec("captum") is None:
        raise MissingCaptumError(
            "Explanations are made with captum, which isn't installed: "
            "pip install 'feedback-adapter[explain]'."
        )
    labelled = {name: spec for name, spec in specs.items() if spec.kind != "tokens"}
    if output is not None and output not in labelled:
        raise EvidenceError(
            f"There is no output {output!r:.80} of labels. {did_you_mean(output, labelled)}"
        )
    names = [output] if output is not None else list(labelled)
    fits = [name for name in names if find(label, labelled[name].labels)]
    if len(fits) > 1:
        raise EvidenceError(
            f"{label!r} is a label of several outputs: {fits}. Say which, with output=."
        )
    if not fits:
        place(label, [known for name in names for known in labelled[name].labels])
    return fits[0], place(label, labelled[fits[0]].labels)
