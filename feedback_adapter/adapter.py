"""A model, what its outputs mean, and `refine`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from feedback_adapter import plugins
from feedback_adapter.checkpoint import Architecture, Card, Checkpoint
from feedback_adapter.checkpoint import write as write_checkpoint
from feedback_adapter.defaults import Defaults
from feedback_adapter.errors import (
    EvidenceError,
    InputError,
    ModelError,
    OptionsError,
    SiteError,
)
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Output, Outputs, read
from feedback_adapter.prior import LabelPrior
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites import Inputs, Site, SiteInfo, discover, frozen, unwrapped
from feedback_adapter.sites.auto import middle, spread
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.selection import Choice, Search, choose

if TYPE_CHECKING:
    from feedback_adapter.transform import Transform

__all__ = ["Adapter"]


class Adapter:
    """A model that can be told what is known. Make it with `wrap` or `load`.

    Args:
        model: Any `nn.Module` that takes images. It is used, never changed.
        outputs: What the model returns, by name.
        transform: How photos become the model's input, if known.
        defaults: What `refine` does where it isn't told.
        priors: Label statistics of a training set, by output; see `fit_prior`.
        card: What the checkpoint that it comes from says of itself; `save` keeps it.
    """

    def __init__(
        self,
        model: nn.Module,
        outputs: Mapping[str, Output],
        *,
        transform: Transform | None = None,
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
        self._auto: dict[tuple[int, ...], tuple[str, ...]] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model's only output.

        Raises:
            ModelError: The model has several outputs: ask `outputs[name].labels`.
        """
        if len(self.outputs) > 1:
            raise ModelError(
                f"Several outputs have labels: ask adapter.outputs[name] of {list(self.outputs)}."
            )
        return next(iter(self.outputs.values())).labels

    def sites(self, images: Any) -> list[SiteInfo]:
        """Every place a pivot can be, in the order of the forward pass.

        Args:
            images: (batch, channels, height, width), or whatever the model takes. One
                image is enough.
        """
        inputs = self._inputs(images)
        with frozen(self.model):
            return discover(self.model, inputs)

    def predict(self, images: Any) -> Tensor | dict[str, Tensor]:
        """The unrefined model's logits, (batch, labels) or a dict of them, in evaluation mode."""
        return self.unrefined(images).as_returned()

    def unrefined(self, images: Any) -> Outputs:
        """The unrefined model's outputs by name, also where there is only one.

        Args:
            images: As for `refine`.
        """
        inputs = self._inputs(images)
        with frozen(self.model), torch.no_grad():
            return self.read(inputs.run(self.model))

    @torch.inference_mode(False)  # whatever the caller is in: autograd is needed
    def refine(
        self,
        images: Any,
        evidence: Evidence,
        *,
        strategy: str | None = None,
        pivots: str | Site | Sequence[str | Site] | None = None,
        options: Any = None,
        **overrides: Any,
    ) -> Refinement:
        """Better predictions of what is unknown, from what is known.

        Args:
            images: (batch, channels, height, width), as the model takes them; a tuple of
                its arguments, or a dict of its keyword arguments.
            evidence: What is known, e.g. `Labels({"dog": 1})`.
            strategy: Name of a strategy. By default, or with `"auto"`, what measured best:
                `"posterior"` where label statistics are there (`fit_prior`) and a label is
                known; else the checkpoint's, else `"newton"`, whose steps need no tuning.
                Where that has no such option as is given (`step_size`), `"residual"`.
            pivots: Names of sites or sites, or `"auto"`; by default the checkpoint's.
            options: The strategy's options, whole.
            **overrides: Single options by name, e.g. `steps=20`.

        Returns:
            Predictions before and after, losses, steps, per image. An image's result
            doesn't depend on its batch mates (but see the strategies' `reference()`).

        Raises:
            EvidenceError: The evidence doesn't fit the model or the batch.
            InputError: NaN or inf in an image, or another device than the model's.
            OptionsError: An unknown option, or one out of its range.
            PluginError: An unknown strategy.
            SiteError: An unknown pivot, or one that known outputs don't depend on.
        """
        if not isinstance(evidence, Evidence):
            raise EvidenceError(
                f"evidence is a {type(evidence).__name__}: "
                "pass evidence such as Labels({'dog': 1})."
            )
        inputs = self._inputs(images)
        bound = evidence.bind(self.outputs, inputs.batch)
        name = strategy if strategy not in (None, "auto") else None
        name = name or self._best(bound, inputs, options, overrides)
        spec = plugins.strategy(name)
        made = self.defaults.options_for(name, spec.options, options, overrides)
        if inputs.batch == 0:
            return self._empty(inputs, bound, name)
        with frozen(self.model):
            problem = Problem(
                self.model, inputs, bound, self._pivots(inputs, pivots), self.read, self.priors
            )
            result = spec.strategy(made).refine(problem)
        return dataclasses.replace(result, strategy=name, images=self._pictures(inputs))

    @torch.inference_mode(False)
    def choose_pivots(
        self,
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
        """The pivot, step size and number of steps that best predict part of what is known.

        Part of what is known of each image is hidden, the rest refines, and the setting that
        predicts the hidden part best is chosen. The unknown outputs play no part. Settings that
        are clearly behind after some batches aren't tried on the others.

        Args:
            images: As for `refine`; about a thousand tell sites apart that
                differ by a few tenths of a point.
            evidence: What is known of them, at least two variables of an image.
            strategy: Name of the strategy; it must descend (`"residual"`, `"layerwise"`). By
                default the checkpoint's if it does, else `"residual"`.
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
            tolerance: Of the sites whose gain is at most so many standard errors below the
                best, the latest, whose tail is the cheapest, is chosen; 0 takes the best.
            seed: Of what is hidden.
            **overrides: Other options of the strategy, by name, e.g. `solver="adam"`.

        Returns:
            The choice: `refine(images, evidence, **choice.arguments)`.

        Raises:
            EvidenceError: No image has two known variables.
            OptionsError: A value is out of its range, or the strategy takes no steps.
        """
        name = strategy or self.defaults.strategy
        if strategy is None and name not in ("residual", "layerwise"):
            name = "residual"
        kind = plugins.strategy(name).options
        own = self.defaults.options_for(name, kind, None, overrides)
        if not hasattr(own, "step_size"):
            raise OptionsError(f"strategy={name!r} takes no steps: 'residual' and 'layerwise' do.")
        sizes = step_sizes or [share * own.step_size for share in (0.1, 0.3, 1.0, 3.0)]
        search = Search(steps, tuple(sizes), hide, criterion, batch, tolerance, seed)
        inputs = self._inputs(images)
        bound = evidence.bind(self.outputs, inputs.batch)
        rows = torch.arange(inputs.batch, device=inputs.images.device)
        one = inputs.take(rows[:1])
        with frozen(self.model), torch.no_grad():
            costs = {Site.of(site): site for site in discover(self.model, one)}
            if pivots is None:
                sites = spread(self.model, one, self.read, 6)
            else:
                wanted = [Site.of(pivot) for pivot in pivots]
                sites = [costs.get(site, SiteInfo(*site.key)) for site in wanted]
            parts = [inputs.take(part) for part in rows.split(batch)]
            found = [self.read(part.run(self.model)) for part in parts]
        plain = Outputs({n: torch.cat([o[n] for o in found]) for n in found[0]}, self.outputs)

        def refine(part: Tensor, hidden: Evidence, **arguments: Any) -> Refinement:
            return self.refine(inputs.take(part), hidden, **arguments)

        return choose(refine, name, sites, bound, plain, search, overrides)

    def read(self, value: Any) -> Outputs:
        """Make `Outputs` of what the model returned.

        Raises:
            ModelError: An output isn't there, or hasn't one entry per label.
        """
        return read(value, self.outputs)

    def save(self, directory: str | Path, *, architecture: Architecture | None = None) -> Path:
        """Write everything that makes this adapter, so that `load(directory)` makes it again.

        A checkpoint that was in the directory is replaced as a whole: an error or a kill leaves
        the old one as it was.

        Args:
            directory: A new or empty folder, or one that holds a checkpoint.
            architecture: How to build the model; needed only where neither the adapter's card
                nor timm's own note on the model says it, or where they lead to another model.

        Raises:
            CheckpointError: The model can't be built again from what is known about it, a
                checkpoint can't hold a part of the adapter, or the folder can't be written.
        """
        folder = Path(directory)
        checkpoint = Checkpoint(
            self.model, self.outputs, self.transform, self.defaults, self.priors, self.card
        )
        write_checkpoint(checkpoint, folder, architecture)
        return folder

    def fit_prior(
        self, probabilities: Tensor, targets: Tensor, *, output: str | None = None
    ) -> LabelPrior:
        """Learn from training images which labels go together, for `strategy="posterior"`.

        Args:
            probabilities: (images, labels), what this model says of them, in [0, 1].
            targets: (images, labels), the truth.
            output: Of which output; needed only where there are several.

        Returns:
            The statistics, which the adapter uses from now on, and `save` keeps.

        Raises:
            DataError: The shapes differ.
            ModelError: No such output, or one that isn't multilabel.
        """
        fits = [name for name, spec in self.outputs.items() if spec.kind == "multilabel"]
        name = output if output is not None else (fits[0] if len(fits) == 1 else None)
        if name not in fits:
            raise ModelError(
                f"Label statistics are of one multilabel output; {fits or 'none'} are, not "
                f"{output!r}."
            )
        self.priors[name] = LabelPrior.fit(probabilities, targets)
        return self.priors[name]

    # ---- what refine needs ----

    def _best(
        self, bound: Evidence, inputs: Inputs, options: Any, overrides: Mapping[str, Any]
    ) -> str:
        """The strategy that measured best for what is there, and takes what is asked for."""

        def takes(name: str) -> bool:
            kind = plugins.strategy(name).options
            possible = {field.name for field in dataclasses.fields(kind)}
            return possible.issuperset(overrides) and (options is None or type(options) is kind)

        own = self.defaults.strategy if takes(self.defaults.strategy) else "residual"
        if options is not None or not takes("posterior") or not self.priors or inputs.batch == 0:
            return own
        device = inputs.images.device
        blank = Outputs(
            {
                name: torch.zeros(inputs.batch, len(spec.labels), device=device)
                for name, spec in self.outputs.items()
            },
            self.outputs,
        )
        known = bound.known(blank)
        told = any(bool(known[name].any()) for name in self.priors if name in known)
        return "posterior" if told else own

    def _inputs(self, images: Any) -> Inputs:
        inputs = Inputs.of(images)
        parameter = next(iter(self.model.parameters()), None)
        if parameter is None or parameter.is_meta:
            return inputs
        if inputs.images.device != parameter.device:
            raise InputError(
                f"The images are on {inputs.images.device}, the model is on {parameter.device}. "
                f"Move one: images.to({str(parameter.device)!r})."
            )
        return inputs

    def _pivots(self, inputs: Inputs, pivots: Any) -> tuple[Site, ...]:
        if pivots is None:
            pivots = self.defaults.pivots
        if isinstance(pivots, str) and pivots == "auto":
            return self._automatic(inputs)
        if isinstance(pivots, (str, Site)):
            pivots = [pivots]
        pivots = list(cast("Sequence[str | Site]", pivots))
        if not pivots:
            raise SiteError("pivots is empty. Name at least one site, or pass pivots='auto'.")
        return tuple(dict.fromkeys(Site.of(pivot) for pivot in pivots))

    def _automatic(self, inputs: Inputs) -> tuple[Site, ...]:
        shape = tuple(inputs.images.shape[1:])
        if shape not in self._auto:
            one = inputs.take(torch.arange(1, device=inputs.images.device))
            self._auto[shape] = (middle(self.model, one, self.read).name,)
        return tuple(Site.of(name) for name in self._auto[shape])

    def _pictures(self, inputs: Inputs) -> Tensor | None:
        images = inputs.images.detach()
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            return None
        images = images.float().cpu()
        if self.transform is not None:
            return self.transform.picture(images)
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return (images - low) / (high - low).clamp(min=1e-6)

    def _empty(self, inputs: Inputs, evidence: Evidence, strategy: str) -> Refinement:
        """The refinement of no images."""
        device = inputs.images.device
        outputs = Outputs(
            {n: torch.zeros(0, len(s.labels), device=device) for n, s in self.outputs.items()},
            self.outputs,
        )
        losses = torch.zeros(1, 0, device=device)
        nothing = Refinement.of(evidence, outputs, outputs, status=(), losses=losses)
        return dataclasses.replace(nothing, strategy=strategy)

    def __repr__(self) -> str:
        outputs = ", ".join(
            f"{name}: {spec.kind} of {len(spec.labels)}" for name, spec in self.outputs.items()
        )
        return f"Adapter({type(self.model).__name__}, {outputs})"
