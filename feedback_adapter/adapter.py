"""A model, what its outputs mean, and `refine`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter import guard, plugins
from feedback_adapter.calibration import Calibration, calibrate
from feedback_adapter.checkpoint import Architecture, Card, Checkpoint, push_to_hub
from feedback_adapter.checkpoint import write as write_checkpoint
from feedback_adapter.defaults import Defaults, pick
from feedback_adapter.errors import EvidenceError, InputError, ModelError, SiteError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.explain import Asked
from feedback_adapter.hookspecs import StrategySpec
from feedback_adapter.logits import LogitCheck
from feedback_adapter.outputs import Output, Outputs, read
from feedback_adapter.pivot_search import Choice, choose_pivots
from feedback_adapter.prepared import Prepared, prepare
from feedback_adapter.prior import LabelPrior
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import (
    Inputs,
    Site,
    SiteInfo,
    discover,
    frozen,
    named_sites,
    uncompiled,
    unwrapped,
)
from feedback_adapter.sites.auto import Automatic
from feedback_adapter.sites.rows import RowCheck
from feedback_adapter.strategies.base import Facts, Problem
from feedback_adapter.transform import PhotoTransform, opened, pictures_of

__all__ = ["Adapter"]


class Adapter:
    """A model, and what its outputs mean. Make it with `wrap` or `load`.

    Args:
        model: Any `nn.Module` that takes images. It is used, never changed.
        outputs: What the model returns, by name.
        transform: How photos become the model's input, if known.
        defaults: What `refine` does where its arguments don't say.
        priors: Label statistics of a training set, by output; see `fit_prior`.
        card: What the checkpoint that it comes from says of itself; `save` keeps it.
    """

    def __init__(
        self,
        model: nn.Module,
        outputs: Mapping[str, Output],
        *,
        transform: PhotoTransform | None = None,
        defaults: Defaults | None = None,
        priors: Mapping[str, LabelPrior] | None = None,
        card: Card | None = None,
    ) -> None:
        self.model = unwrapped(model)
        self.outputs = dict(outputs)
        self.transform = transform
        self.defaults = defaults or Defaults()
        self.priors = dict(priors or {})
        self.card = card or Card()
        self._logits = LogitCheck()
        self._auto = Automatic()
        self._rows = RowCheck()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model's only output.

        Raises:
            ModelError: The model has several outputs: ask `outputs[name].labels`.
        """
        if len(self.outputs) != 1:
            raise ModelError(
                f"Ask adapter.outputs[name].labels: there are {list(self.outputs) or 'no outputs'}."
            )
        return next(iter(self.outputs.values())).labels

    def to(self, device: torch.device | str) -> Adapter:
        """Move the model to a device, as `model.to(device)` does, and return this adapter.

        Raises:
            ModelError: There is no such device here.
        """
        try:
            self.model.to(device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ModelError(f"The model can't be moved to {device!r}: {error}") from error
        return self

    @uncompiled
    def sites(self, images: Any) -> list[SiteInfo]:
        """Every place a pivot can be, in the order of the forward pass.

        Args:
            images: (batch, channels, height, width), or whatever the model takes. One
                image is enough.
        """
        inputs = self.inputs(images)
        with frozen(self.model):
            return discover(self.model, inputs)

    def predict(self, images: Any) -> Tensor | dict[str, Tensor]:
        """The unrefined model's logits, (batch, labels) or a dict of them, in evaluation mode."""
        return self.unrefined(images).as_returned()

    @uncompiled
    def unrefined(self, images: Any) -> Outputs:
        """The unrefined model's outputs by name, also where there is only one.

        Args:
            images: As for `refine`.

        Raises:
            InputError: The images can't be used, or their logits are NaN or infinite.
        """
        inputs = self.inputs(images)
        if isinstance(images, Prepared):
            return images.unrefined(self.read).checked()
        with frozen(self.model, watch=False), torch.no_grad():
            outputs = self.read(inputs.run(self.model)).for_images(inputs.batch).checked()
        self._logits(self.model, inputs, outputs, self.read)
        return outputs

    @uncompiled
    @torch.inference_mode(False)
    def prepare(
        self, images: Any, *, pivots: str | Site | Sequence[str | Site] | None = None
    ) -> Prepared:
        """Run the forward pass of a batch once, and keep what refinements need of it.

        `refine` takes the result in place of the images, and then costs what follows the
        first pivot only: with any evidence and strategy, as often as wanted, in any order, and
        from several threads at once. The results are those of `refine(images, ...)`, bit for
        bit. Where at least half of a batch has converged before its last step, the others go
        on in a forward pass of their own (not with `patience=None`). A prepared batch is
        refused once the images, or numbers of the model, have changed.

        Args:
            images: As for `refine`. They must not be written to as long as this is used.
            pivots: As for `refine`, which may then use all of them, or some.

        Returns:
            The prepared batch; its `nbytes` says how much memory it holds.

        Raises:
            InputError: No image, NaN or inf in one, or another device than the model's.
            SiteError: An unknown pivot.
        """
        inputs = self.inputs(images)
        sites = self._pivots(inputs, pivots) if inputs.batch else ()
        try:
            return prepare(self.model, inputs, sites)
        except SiteError:
            other = self._auto.elsewhere(self.model, inputs, self.read, sites)
            if other is None:
                raise
            return prepare(self.model, inputs, (other,))

    @uncompiled
    @torch.inference_mode(False)  # whatever the caller is in: autograd is needed
    def refine(
        self,
        images: Any,
        evidence: Evidence,
        *,
        strategy: str | None = None,
        pivots: str | Site | Sequence[str | Site] | None = None,
        options: Any = None,
        explainable: bool = False,
        **overrides: Any,
    ) -> Refinement:
        """Better predictions of what is unknown, from what is known.

        Args:
            images: (batch, channels, height, width), as the model takes them; a tuple of
                its arguments, or a dict of its keyword arguments; one photo or a list of them
                (files, Pillow images, uint8 pixels); or what `prepare` returned.
            evidence: What is known, e.g. `Labels({"dog": 1})`.
            strategy: Name of a strategy. By default, or with `"auto"`, each image gets the one
                that suits it best of those that take the options that are given: the
                checkpoint's own choice, if it has one, else what each strategy says of itself
                (`StrategySpec.suits`).
            pivots: Names of sites or sites, or `"auto"`; by default the checkpoint's.
            options: The strategy's options, whole.
            explainable: Whether the result keeps what `Refinement.explain` needs.
            **overrides: Single options by name, e.g. `steps=20`.

        Returns:
            Predictions before and after, losses, steps, per image. What is certain holds in
            `after`, whatever the strategy. An image's result doesn't depend on its batch mates
            (but see the strategies' `reference()`).

        Raises:
            EvidenceError: The evidence doesn't fit the model or the batch.
            InputError: NaN or inf in an image, or another device than the model's.
            OptionsError: An unknown option, or one out of its range.
            PluginError: An unknown strategy.
            SiteError: An unknown pivot, or one that known outputs don't depend on.
        """
        inputs = self.inputs(images)
        bound = guard.bind(evidence, self.outputs, inputs.batch)
        with guard.Named():
            chosen = self._strategies(inputs, bound, strategy, options, overrides)
        runs = [
            (spec, self.defaults.options_for(spec.name, spec.options, options, overrides), rows)
            for spec, rows in chosen
        ]
        if inputs.batch == 0:
            return Refinement.of_none(bound, self.outputs, inputs.images.device)
        names, sites, other = ", ".join(guard.title(spec) for spec, _, _ in runs), (), None
        try:
            prepared = images if isinstance(images, Prepared) else None
            if prepared is not None and pivots is None:
                sites = prepared.pivots
            else:
                sites = self._pivots(inputs, pivots)
            with frozen(self.model):
                recorded = None if prepared is None else prepared.from_pivots(sites)
                told = Problem(self.model, inputs, bound, sites, self.read, self.priors, recorded)
                told = dataclasses.replace(told, hold=explainable)
                problem = guard.tried(evidence, told, self.outputs)
                result = guard.run_each(runs, problem, self.outputs)
        except (EvidenceError, SiteError) as error:
            if isinstance(error, SiteError) and not isinstance(images, Prepared):
                other = self._auto.elsewhere(self.model, inputs, self.read, sites)
            if other is not None:
                again: Any = {"strategy": strategy, "pivots": other, "options": options}
                return self.refine(images, evidence, explainable=explainable, **again, **overrides)
            given = [site.name for site in sites] or pivots
            said = f"{error} Given: strategy={names}, pivots={given!r}, images "
            error.args = (f"{said}{tuple(inputs.images.shape)}, {self!r}.",)
            raise
        self._logits(self.model, inputs, result.outputs_before, self.read)
        pictures = pictures_of(inputs.images, self.transform)
        asked = Asked(self, inputs, evidence, sites, {spec.name: o for spec, o, _ in runs})
        return dataclasses.replace(result, images=pictures, asked=asked if explainable else None)

    def choose_pivots(self, images: Any, evidence: Evidence, **arguments: Any) -> Choice:
        """Choose pivots from what is known alone: see `feedback_adapter.choose_pivots`."""
        return choose_pivots(self, images, evidence, **arguments)

    def read(self, value: Any) -> Outputs:
        """Make `Outputs` of what the model returned.

        Raises:
            ModelError: An output isn't there, or hasn't one entry per label.
        """
        return read(value, self.outputs)

    def save(self, directory: str | Path, *, architecture: Architecture | None = None) -> Path:
        """Write everything that makes this adapter, so that `load(directory)` makes it again.

        A checkpoint that was there is replaced as a whole; an error or a kill leaves it as it was.

        Args:
            directory: A new or empty folder, or one that holds a checkpoint.
            architecture: How to build the model, where `save` can't find it out by itself.

        Raises:
            CheckpointError: What would be built returns something else, a checkpoint can't
                hold a part of the adapter, or the folder can't be written.
        """
        checkpoint = Checkpoint(
            self.model, self.outputs, self.transform, self.defaults, self.priors, self.card
        )
        write_checkpoint(checkpoint, directory, architecture)
        return Path(directory)

    push_to_hub = push_to_hub

    def fit_prior(
        self,
        probabilities: Tensor,
        targets: Tensor,
        *,
        held_out: Tensor | None = None,
        output: str | None = None,
    ) -> LabelPrior:
        """Learn from training images which labels go together, for strategies that use that.

        Args:
            probabilities: (images, labels), what this model says of them, in [0, 1].
            targets: (images, labels), the truth.
            held_out: (images, labels), logits by cross-validation; see `LabelPrior.fit`.
            output: Name of the output that they belong to; needed only where there are several.

        Returns:
            The statistics, which the adapter uses from now on, and `save` keeps.

        Raises:
            DataError: The shapes differ, or numbers outside [0, 1].
            ModelError: No such output, or one that isn't multilabel.
        """
        name = self._multilabel(output)
        count = len(self.outputs[name].labels)
        self.priors[name] = LabelPrior.fit(probabilities, targets, held_out, labels=count)
        return self.priors[name]

    def calibrate(
        self, images: Any, targets: Tensor, *, output: str | None = None, batch: int = 64
    ) -> Calibration:
        """Learn from images that the model wasn't trained on how sure it should be.

        Fits a scale (the inverse temperature) and a bias of the logits, and the weights of label
        statistics where there are any, all by likelihood; of classes the scale only. They are in
        `defaults`, and `save` keeps them: `refine` uses the weights, and evaluation compares
        refined predictions with calibrated ones.

        Args:
            images: Some hundreds, as for `refine`.
            targets: (images, labels), the truth; of classes (images,), the number of each.
            output: Name of the output that they belong to; needed only where there are several.
            batch: Images that go through the model at a time.

        Returns:
            What was found, and the likelihoods before and after, cross-fitted.

        Raises:
            DataError: The shapes differ, fewer than two images, or no such class.
            ModelError: No such output, or one of another kind.
        """
        return calibrate(self, images, targets, output=output, batch=batch)

    def _multilabel(self, output: str | None) -> str:
        fits = [name for name, spec in self.outputs.items() if spec.kind == "multilabel"]
        name = output if output is not None else (fits[0] if len(fits) == 1 else None)
        if not isinstance(name, str) or name not in fits:
            raise ModelError(
                f"This needs one multilabel output; {fits or 'none'} are, not {output!r:.80}."
            )
        return name

    def _strategies(
        self,
        inputs: Inputs,
        evidence: Evidence,
        strategy: str | None,
        options: Any,
        overrides: Mapping[str, Any],
    ) -> list[tuple[StrategySpec, Tensor]]:
        """The strategies to run, each with the indices of its images, (k,)."""
        device = inputs.images.device
        if not (strategy is None or (isinstance(strategy, str) and strategy == "auto")):
            return [(plugins.strategy(strategy), torch.arange(inputs.batch, device=device))]
        facts = Facts(self.model, self.outputs, inputs, evidence, self.priors)
        specs = {spec.name: spec for spec in plugins.plugins().all("strategies")}
        found = pick(facts, self.defaults, list(specs.values()), options, overrides)
        return [(specs[n], torch.tensor(rows, device=device)) for n, rows in found.items()]

    def inputs(self, images: Any) -> Inputs:
        """What the model is given of images in any form that `refine` takes.

        Raises:
            InputError: The images can't be used, or are on another device than the model.
        """
        if isinstance(images, Prepared):
            images.check(self.model)
            return images.inputs
        parameter = next(iter(self.model.parameters()), None)
        device = None if parameter is None or parameter.is_meta else parameter.device
        inputs = Inputs.of(opened(images, self.transform, device))
        if device is not None and inputs.images.device != device:
            raise InputError(
                f"The images are on {inputs.images.device}, the model is on {device}. "
                f"Move one: images.to({str(device)!r})."
            )
        return inputs

    def _pivots(self, inputs: Inputs, pivots: Any) -> tuple[Site, ...]:
        if pivots is None:
            pivots = self.defaults.pivots
        if isinstance(pivots, str) and pivots == "auto":
            return (self._auto.site(self.model, inputs, self.read),)
        sites = named_sites(self.model, pivots)
        self._rows(self.model, inputs, sites)
        return sites

    def __repr__(self) -> str:
        outputs = ", ".join(
            f"{name}: {spec.kind} of {len(spec.labels)}" for name, spec in self.outputs.items()
        )
        return f"Adapter({type(self.model).__name__}, {outputs})"
