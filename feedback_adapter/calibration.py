"""Calibration: how sure a model should be, from images that it wasn't trained on.

Source: Platt, "Probabilistic outputs for support vector machines", 1999; Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.batches import in_batches
from feedback_adapter.errors import DataError, ModelError
from feedback_adapter.prior import JOINT, LATENT, RIDGE, LabelPrior, calm

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter

MASKS = 6
"""Known sets that the posterior's weights are fitted on: up to half of the labels, at random."""

ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What held-out images say of how sure a model should be.

    Args:
        scale: What logits should be multiplied by, the inverse of the temperature.
        bias: What should be added to them then, in nats; 0 for classes, which it can't change.
        before: Negative log-likelihood of the logits as they are, in nats per label or, of
            classes, per image.
        after: The same of calibrated logits, where each half of the images was calibrated on
            the other half.
        posterior: Options of the posterior that are likeliest, `joint`, `latent`, `scale` and
            `bias`; empty without label statistics, or where they are no better on the other half.
        posterior_before: Negative log-likelihood of unknown labels with its default options.
        posterior_after: The same with those that were fitted on the other half.
    """

    scale: float
    bias: float
    before: float
    after: float
    posterior: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    posterior_before: float = float("nan")
    posterior_after: float = float("nan")

    @classmethod
    def fit(
        cls, logits: Tensor, targets: Tensor, prior: LabelPrior | None = None, *, seed: int = 0
    ) -> Calibration:
        """Fit to images that the model wasn't trained on.

        Args:
            logits: (images, labels), the unrefined model's.
            targets: (images, labels), the truth, 0 or 1; or (images,), the number of each class.
            prior: Label statistics, to fit the posterior's weights, too.
            seed: Of the known sets.

        Raises:
            DataError: The shapes differ, fewer than two images, or no such class.
        """
        if targets.ndim == 1:
            return cls._of_classes(logits, targets)
        if logits.shape != targets.shape or len(logits) < 2:
            raise DataError(
                f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must be of one "
                "shape (images, labels), with at least two images."
            )
        if not bool(((targets >= 0) & (targets <= 1)).all()):  # NaN fails both
            raise DataError(
                "targets must be in [0, 1]; what NaN or -1 for 'unknown' is, you decide."
            )
        half = (torch.arange(len(logits), device=logits.device) % 2).bool()
        truth = targets.to(logits)
        plain = _Mix([(torch.stack([logits]), truth, half)], logits.new_tensor([1.0, 0.0]))
        scale, bias = plain.weights().tolist()
        found = cls(scale, bias, plain.start_loss(), plain.crossed_loss())
        if prior is None:
            return found
        generator = torch.Generator().manual_seed(seed)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for number in range(MASKS):
            count = logits.shape[1] * (number + 1) // (2 * MASKS)
            known = torch.zeros(logits.shape[1], dtype=torch.bool, device="cpu")
            known[torch.randperm(len(known), generator=generator, device="cpu")[:count]] = True
            each = known.to(logits.device).expand_as(logits)
            joint = prior.joint_move(logits, truth, each, RIDGE)
            latent = prior.latent_move(calm(logits), truth, each)
            columns = torch.stack([logits, joint, latent])[:, :, ~known]
            parts.append((columns, truth[:, ~known], half))
        mix = _Mix(parts, logits.new_tensor([1.0, JOINT, LATENT, 0.0]))
        before, after = mix.start_loss(), mix.crossed_loss()
        names = ("scale", "joint", "latent", "bias")
        best = dict(zip(names, mix.weights().tolist(), strict=True)) if after < before else {}
        return dataclasses.replace(
            found, posterior=best, posterior_before=before, posterior_after=after
        )

    @classmethod
    def _of_classes(cls, logits: Tensor, targets: Tensor) -> Calibration:
        count = logits.shape[1]
        whole = not targets.is_floating_point() and not targets.is_complex()
        fits = len(targets) == len(logits) >= 2 and whole
        if not fits or not bool(((targets >= 0) & (targets < count)).all()):
            raise DataError(
                f"targets {tuple(targets.shape)} of {targets.dtype} must be the numbers of "
                f"{len(logits)} images' classes, 0 to {count - 1}, of at least two images."
            )
        z, truth = logits.double(), targets.to(logits.device).long()
        losses = torch.empty_like(z[:, 0])
        for first in (0, 1):
            own, other = slice(first, None, 2), slice(1 - first, None, 2)
            scale = _class_scale(z[other], truth[other])
            losses[own] = F.cross_entropy(scale * z[own], truth[own], reduction="none")
        before, scale = float(F.cross_entropy(z, truth)), _class_scale(z, truth)
        return cls(scale, 0.0, before, float(losses.mean()))


def calibrate(
    adapter: Adapter, images: Any, targets: Tensor, *, output: str | None, batch: int = 64
) -> Calibration:
    """Calibrate one output of an adapter. See `Adapter.calibrate`."""
    kinds = {name: spec.kind for name, spec in adapter.outputs.items()}
    fits = [name for name, kind in kinds.items() if kind in ("multilabel", "multiclass")]
    output = fits[0] if output is None and len(fits) == 1 else output
    if output is None or output not in fits:
        raise ModelError(f"Labels or classes are calibrated: {fits}, not {output!r:.80}.")
    try:
        targets = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"targets is a {type(targets).__name__}: give a tensor.") from error
    if (kinds[output] == "multiclass") != (targets.ndim == 1):
        raise DataError(
            f"targets {tuple(targets.shape)} must be (images,), numbers of classes, for a "
            f"multiclass output, and (images, labels) otherwise; {output!r} is {kinds[output]}."
        )
    inputs = adapter.inputs(images)
    before = in_batches(lambda rows: adapter.unrefined(inputs.take(rows)), inputs.batch, batch)
    with torch.no_grad():
        found = Calibration.fit(before[output], targets, adapter.priors.get(output))
    own = {output: {"scale": found.scale, "bias": found.bias}}
    others = {**adapter.defaults.others}
    if found.posterior:
        others["posterior"] = {**others.get("posterior", {}), **found.posterior}
    adapter.defaults = dataclasses.replace(
        adapter.defaults, others=others, calibration={**adapter.defaults.calibration, **own}
    )
    return found


def _class_scale(logits: Tensor, targets: Tensor) -> float:
    """The likeliest scale of logits of classes; that it is 1 counts like one image."""
    scale = logits.new_ones(())
    for _ in range(ROUNDS):
        p = (scale * logits).softmax(1)
        mean = (p * logits).sum(1)
        slope = (mean - logits.gather(1, targets[:, None])[:, 0]).sum() + scale - 1
        bend = (p * logits.square()).sum() - mean.square().sum() + 1
        scale = (scale - slope / bend).clamp(min=scale / 4)  # Newton's step, which stays above 0
    return float(scale)


class _Mix:
    """A logistic regression of the truth on columns of logits, near to given weights.

    Args:
        parts: Columns (k, images, labels), the truth (images, labels), and which half of the
            images (images,) bool each belongs to.
        start: (k + 1,), the columns' weights and a bias, which count like one image.
    """

    def __init__(self, parts: list[tuple[Tensor, Tensor, Tensor]], start: Tensor) -> None:
        self.columns = torch.cat([columns.flatten(1) for columns, _, _ in parts], 1).double()
        self.columns = torch.cat([self.columns, torch.ones_like(self.columns[:1])])
        self.truth = torch.cat([truth.flatten() for _, truth, _ in parts]).double()
        self.half = torch.cat([half[:, None].expand_as(t).flatten() for _, t, half in parts])
        self.start = start.double()

    def weights(self, rows: Tensor | None = None) -> Tensor:
        """The likeliest weights (k + 1,), by Newton's method."""
        columns, truth = self.columns, self.truth
        if rows is not None:
            columns, truth = columns[:, rows], truth[rows]
        weights = self.start.clone()
        for _ in range(ROUNDS):
            p = torch.sigmoid(weights @ columns)
            slope = columns @ (p - truth) + weights - self.start
            bend = (columns * (p * (1 - p))) @ columns.T + torch.eye(len(weights)).to(columns)
            weights = weights - torch.linalg.solve(bend, slope)
        return weights

    def start_loss(self) -> float:
        """Nats per label of the given weights."""
        return float(F.binary_cross_entropy_with_logits(self.start @ self.columns, self.truth))

    def crossed_loss(self) -> float:
        """Nats per label of weights that were fitted on the other half of the images."""
        logits = torch.empty_like(self.truth)
        for own in (self.half, ~self.half):
            logits[own] = self.weights(~own) @ self.columns[:, own]
        return float(F.binary_cross_entropy_with_logits(logits, self.truth))
