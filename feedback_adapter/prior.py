"""What a training set says about which labels go together, and with what the model says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from feedback_adapter.errors import CheckpointError, DataError
from feedback_adapter.gaussian import conditional, latent_move, nearest_covariance
from feedback_adapter.installed import reason

_EDGE = 1e-4
"""How near to 0 and 1 an expectation may come before it is made log-odds."""

_SCALE = 256.0
"""Covariances are stored multiplied by this: float16 has few digits near 0."""

JOINT = 0.6
"""Weight of the joint Gaussian's move; chosen on dev, for both checkpoints that have statistics."""

RIDGE = 3e-2
"""Variance of a known label's noise in it."""

LATENT = 0.8
"""Weight of the move by the couplings of logits; chosen likewise."""

_FEW = 5.0
"""Couplings shrink as if so many pairs of labels had been seen of which nothing follows."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelPrior:
    """Statistics of a training set, from which known labels say what to expect of the others.

    Args:
        mean: (2, labels), of the model's probabilities and of the labels.
        covariance: (3, labels, labels): the covariances of p with p, of y with p, and of y with y.
        couplings: (labels, labels), in nats squared: how the errors of the model's logits go
            together on images that it wasn't trained on.
    """

    mean: Tensor
    covariance: Tensor
    couplings: Tensor

    @classmethod
    def fit(
        cls,
        probabilities: Tensor,
        targets: Tensor,
        held_out: Tensor | None = None,
        *,
        labels: int | None = None,
    ) -> LabelPrior:
        """Statistics of a training set.

        Args:
            probabilities: (images, labels), the model's, in [0, 1].
            targets: (images, labels), the truth, 0 or 1.
            held_out: (images, labels), for the couplings: logits of each image by a model
                that wasn't trained on it, as cross-validation gives them. The model's own won't
                do, for it knows its training images by heart. By default the couplings are those
                of a model that knows nothing but how frequent labels are: somewhat too large.
            labels: How many labels there must be; any number by default.

        Raises:
            DataError: The shapes differ, fewer than two images, or numbers outside [0, 1].
        """
        p, y = _matrix("probabilities", probabilities), _matrix("targets", targets)
        logits = None if held_out is None else _matrix("held_out", held_out)
        shapes = {tuple(t.shape) for t in (p, y, logits) if t is not None}
        if len(shapes) > 1 or len(y) < 2 or y.shape[1] != (labels or y.shape[1] or 1):
            raise DataError(
                f"probabilities {tuple(p.shape)}, targets {tuple(y.shape)} and held_out must be of "
                f"one shape (images, {labels or 'labels'}), with at least two images and a label."
            )
        for name, given in (("probabilities", p), ("targets", y)):
            low, high = given.min().item(), given.max().item()
            if not 0 <= low <= high <= 1:
                raise DataError(
                    f"{name} go from {low:.3g} to {high:.3g}: they must be in [0, 1]. If these are "
                    "logits, give their sigmoid; -1 or 255 for 'unknown' has to be decided."
                )
        mean = torch.stack([p.mean(0), y.mean(0)])
        chance = y.mean(0).expand_as(y) if logits is None else _calibrated(logits, y)
        couplings = _couplings(y - chance, chance * (1 - chance))
        p, y = p - mean[0], y - mean[1]
        covariance = torch.stack([p.T @ p, y.T @ p, y.T @ y]) / len(y)
        return cls(mean.float(), covariance.float(), couplings.float())

    def save(self, file: str | Path) -> None:
        """Write to a safetensors file, as float16 (moments of probabilities are at most 1)."""
        safetensors.torch.save_file(self.tensors(), file)

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it, by name, as float16."""
        tensors = {
            "mean": self.mean,
            "covariance": self.covariance * _SCALE,
            "couplings": self.couplings,
        }
        return {name: tensor.half().contiguous() for name, tensor in tensors.items()}

    @classmethod
    def load(cls, file: str | Path) -> LabelPrior:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: It isn't one.
        """
        try:
            return cls.of(safetensors.torch.load_file(file), file)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{str(file)!r} holds no label prior: {error}") from error

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], where: object) -> LabelPrior:
        """What `tensors` returned, as statistics again.

        Args:
            tensors: By name.
            where: Where they are from, for messages.

        Raises:
            CheckpointError: One is missing.
        """
        parts = {name: tensor.float() for name, tensor in tensors.items()}
        try:
            return cls(parts["mean"], parts["covariance"] / _SCALE, parts["couplings"])
        except KeyError as error:
            raise CheckpointError(f"{str(where)!r} holds no label prior: {error}") from error

    def to(self, like: Tensor) -> LabelPrior:
        """The same on the device of a tensor."""
        parts = (self.mean, self.covariance, self.couplings)
        return LabelPrior(*(part.to(like.device) for part in parts))

    def opinion(self, logits: Tensor, values: Tensor, known: Tensor) -> Tensor:
        """Log-odds of every label, of a known one from the others. See `evidence.base.Opinion`."""
        return logits + JOINT * self.joint_move(logits, values, known, RIDGE)

    def joint_move(self, logits: Tensor, values: Tensor, known: Tensor, ridge: float) -> Tensor:
        """How far known labels move logits, if probabilities and labels are jointly Gaussian.

        Args:
            logits: (batch, labels), the model's, in nats.
            values: (batch, labels), of what is known, in [0, 1].
            known: (batch, labels) bool.
            ridge: Variance of the noise of an observation, above 0.

        Returns:
            (batch, labels), in nats; of a known label from the others, leaving it out.
        """
        pp, yp, yy = (part.double() for part in self.covariance)
        pp = pp + ridge * torch.eye(len(pp), device="cpu").to(pp)
        gain = torch.linalg.solve(pp, yp.T)  # (labels of p, labels of y)
        left = (yy - yp @ gain).float()
        mean = self.mean[1] + (logits.sigmoid() - self.mean[0]) @ gain.float()
        return _log_odds(conditional(mean, left, values, known, ridge)) - logits

    def latent_move(self, logits: Tensor, values: Tensor, known: Tensor) -> Tensor:
        """How far known labels move logits, if the logits' errors go together as they did.

        Args:
            logits: (batch, labels), the model's, in nats, calibrated.
            values: (batch, labels), of what is known, in [0, 1].
            known: (batch, labels) bool.

        Returns:
            (batch, labels), in nats.
        """
        return latent_move(logits, self.couplings, values, known)


def calm(logits: Tensor) -> Tensor:
    """Logits as calibrated as `LabelPrior.latent_move` needs them; it suits both checkpoints."""
    return 0.85 * logits - 0.2


def _matrix(name: str, given: Any) -> Tensor:
    """A tensor or an array (images, labels) of finite numbers as float64; others are refused."""
    try:
        tensor = torch.as_tensor(given, device="cpu")
        if tensor.is_complex():
            raise ValueError("complex numbers")  # which `double` would cut in half
        tensor = tensor.detach().to_dense().double()
        fine = tensor.ndim == 2 and bool(tensor.isfinite().all())
    except Exception as error:  # whatever arrays of a stranger raise
        raise DataError(
            f"{name} is a {type(given).__name__} that holds no numbers: {reason(error)}. "
            "Give a tensor or an array (images, labels)."
        ) from error
    if not fine:
        raise DataError(
            f"{name} is {tuple(tensor.shape)}, with NaN or inf: it must be (images, labels) of "
            "finite numbers; NaN for 'unknown' has to be decided."
            if tensor.ndim == 2
            else f"{name} is {tuple(tensor.shape)}: it must be (images, labels)."
        )
    return tensor


def _couplings(residual: Tensor, variance: Tensor) -> Tensor:
    """Covariance of the errors of logits, from how the labels' residuals go together.

    A residual, the truth less its probability p, is about the error of its logit times the
    variance of the label, p (1 - p). Both are (images, labels).
    """
    moments = residual.T @ residual / (variance.T @ variance + _FEW)
    return nearest_covariance(moments)


def _calibrated(logits: Tensor, targets: Tensor) -> Tensor:
    """Probabilities of logits with a slope and an offset for each label (Platt scaling).

    All are (images, labels), targets 0 or 1. That a slope is 1 counts like `ridge` images.
    """
    logits, ridge = logits.double(), 20.0
    slope, offset = torch.ones_like(logits[0]), torch.zeros_like(logits[0])
    for _ in range(8):
        p = torch.sigmoid(logits * slope + offset)
        error, weight = p - targets, p * (1 - p)
        by_slope = (error * logits).sum(0) + ridge * (slope - 1)
        by_offset = error.sum(0)
        a = (weight * logits * logits).sum(0) + ridge
        b, c = (weight * logits).sum(0), weight.sum(0) + 1e-3
        determinant = a * c - b * b + 1e-6
        slope = slope - (c * by_slope - b * by_offset) / determinant
        offset = offset - (a * by_offset - b * by_slope) / determinant
    return torch.sigmoid(logits * slope + offset)


def _log_odds(p: Tensor) -> Tensor:
    return p.clamp(_EDGE, 1 - _EDGE).logit()
