"""The strategy protocol: a way of making a model's outputs agree with evidence."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from feedback_adapter.evidence.base import Evidence, Opinion
from feedback_adapter.outputs import Output, Outputs
from feedback_adapter.prior import LabelPrior
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import Inputs, Site, Tail

__all__ = ["Facts", "OptionsT", "Problem", "Strategy", "opinion_of"]

OptionsT = TypeVar("OptionsT")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a strategy can ask of a problem to say how well it suits: see `StrategySpec.suits`.

    The question can be asked of a whole batch or of one image: `facts.take(torch.tensor([3]))`.

    Args:
        model: The user's model; a plugin recognises its own models by their class.
        outputs: What the model returns, by name: kinds, labels, hierarchies.
        inputs: The images and what else the model takes.
        evidence: What is known, bound to the outputs and these images.
        priors: Label statistics of a training set, by output, where the user has them.
    """

    model: nn.Module
    outputs: Mapping[str, Output]
    inputs: Inputs
    evidence: Evidence
    priors: Mapping[str, LabelPrior] = dataclasses.field(default_factory=dict[str, LabelPrior])

    def known(self) -> dict[str, Tensor]:
        """`{output: (batch, labels) bool}`: which variables of each image are known.

        Of maps, whose size isn't known before the model has run, it has no pixel.
        """
        device, batch = self.inputs.images.device, self.inputs.batch
        blank = {name: spec.blank(batch, device) for name, spec in self.outputs.items()}
        return self.evidence.known(Outputs(blank, self.outputs))

    def take(self, rows: Tensor) -> Facts:
        """The facts of some of the images, by index (k,)."""
        return dataclasses.replace(
            self, inputs=self.inputs.take(rows), evidence=self.evidence.take(rows)
        )


@dataclasses.dataclass(frozen=True)
class Problem:
    """One batch to refine. The model is held still (`frozen`) while a strategy has it.

    Args:
        model: The user's model, never to be changed.
        inputs: The images and what else the model takes.
        evidence: What is known, bound to the model's outputs and this batch.
        pivots: Where pivots sit, at least one site.
        read: Makes `Outputs` of what the model returns.
        priors: Label statistics of a training set, by output, where the user has them.
        recorded: A forward pass that was recorded before, with the pivots and maybe more.
        hold: Whether `Refinement.activations` is wanted, where pivots move.
    """

    model: nn.Module
    inputs: Inputs
    evidence: Evidence
    pivots: tuple[Site, ...]
    read: Callable[[Any], Outputs]
    priors: Mapping[str, LabelPrior] = dataclasses.field(default_factory=dict[str, LabelPrior])
    recorded: Tail | None = None
    hold: bool = False

    def tail(
        self, pivots: tuple[Site, ...] | None = None, given: Mapping[str, Tensor] | None = None
    ) -> Tail:
        """What follows the first pivot: from the pass that was recorded, or from a new one."""
        if self.recorded is not None:
            return self.recorded.at(pivots or self.pivots, given)
        return Tail.record(self.model, self.inputs, pivots or self.pivots, given)

    def keep(self) -> Problem:
        """The same problem with its forward pass recorded, so that no tail needs another."""
        if self.recorded is not None:
            return self
        return dataclasses.replace(self, recorded=self.tail())

    @torch.no_grad()
    def unrefined(self) -> Outputs:
        """What the model says of the images by itself."""
        recorded = self.recorded
        value = self.inputs.run(self.model) if recorded is None else recorded.value
        return self.read(value).for_images(self.inputs.batch).detach()

    def believed(self) -> Problem:
        """The same problem with evidence in which mistakes are allowed for."""
        if not self.evidence.doubtful:
            return self
        before = self.unrefined()
        opinion = opinion_of(before, self.priors)
        return dataclasses.replace(self, evidence=self.evidence.believed(before, opinion))

    def take(self, rows: Tensor) -> Problem:
        """The same problem for some of the images, by index (k,)."""
        return dataclasses.replace(
            self, inputs=self.inputs.take(rows), evidence=self.evidence.take(rows), recorded=None
        )


class Strategy(abc.ABC, Generic[OptionsT]):
    """A way of refining. Subclass this, and register it with the strategies hook.

    Args:
        options: The strategy's frozen dataclass of options.
    """

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @abc.abstractmethod
    def refine(self, problem: Problem) -> Refinement:
        """Refine one batch. An image's result must not depend on its batch mates."""


def opinion_of(before: Outputs, priors: Mapping[str, LabelPrior]) -> Opinion:
    """What a model says of labels, with label statistics where they are there.

    Args:
        before: The unrefined model's outputs.
        priors: Label statistics, by output.
    """

    def opinion(name: str, values: Tensor, known: Tensor) -> Tensor:
        if name not in priors:
            return before[name]
        return priors[name].to(values).opinion(before[name], values, known)

    return opinion
