"""What a training set says about which labels go together, and with what the model says.

The probabilities p that the model gives and the true labels y of the training images have a
mean and a covariance. Taken as a joint Gaussian they say what to expect of the other labels
when some are known, in closed form for any set of known labels, without retraining.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from feedback_adapter.errors import CheckpointError, DataError

__all__ = ["LabelPrior", "conditional"]

_EDGE = 1e-4
"""How near to 0 and 1 an expectation may come before it is made log-odds."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelPrior:
    """First and second moments of probabilities and labels, over training images.

    Args:
        mean: (2, labels), of the model's probabilities and of the labels.
        covariance: (3, labels, labels): the covariances of p with p, of y with p, and of y with y.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def fit(cls, probabilities: Tensor, targets: Tensor) -> LabelPrior:
        """Moments of a training set.

        Args:
            probabilities: (images, labels), the model's, in [0, 1].
            targets: (images, labels), the truth, 0 or 1.

        Raises:
            DataError: The shapes differ, or fewer than two images.
        """
        if probabilities.shape != targets.shape or len(targets) < 2:
            raise DataError(
                f"probabilities {tuple(probabilities.shape)} and targets {tuple(targets.shape)} "
                "must be of one shape (images, labels), with at least two images."
            )
        p, y = probabilities.double(), targets.double()
        mean = torch.stack([p.mean(0), y.mean(0)])
        p, y = p - mean[0], y - mean[1]
        covariance = torch.stack([p.T @ p, y.T @ p, y.T @ y]) / len(y)
        return cls(mean.float(), covariance.float())

    def save(self, file: str | Path) -> None:
        """Write to a safetensors file, as float16 (moments of probabilities are at most 1)."""
        safetensors.torch.save_file(self.tensors(), file)

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it, by name, as float16."""
        tensors = {"mean": self.mean, "covariance": self.covariance * _SCALE}
        return {name: tensor.half().contiguous() for name, tensor in tensors.items()}

    @classmethod
    def load(cls, file: str | Path) -> LabelPrior:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: It isn't one.
        """
        try:
            tensors = safetensors.torch.load_file(file)
            return cls(tensors["mean"].float(), tensors["covariance"].float() / _SCALE)
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{str(file)!r} holds no label prior: {error}") from error

    def to(self, like: Tensor) -> LabelPrior:
        """The same on the device of a tensor."""
        return LabelPrior(self.mean.to(like.device), self.covariance.to(like.device))

    def from_labels(self, values: Tensor, known: Tensor, ridge: float) -> Tensor:
        """Log-odds that known labels add to every label's prior, (batch, labels), in nats.

        Args:
            values: (batch, labels), of what is known, in [0, 1].
            known: (batch, labels) bool.
            ridge: Variance of the noise of an observation, above 0.
        """
        expected = conditional(
            self.mean[1].expand_as(values), self.covariance[2], values, known, ridge
        )
        return _log_odds(expected) - _log_odds(self.mean[1])

    def from_all(
        self, probabilities: Tensor, values: Tensor, known: Tensor, ridge: float
    ) -> Tensor:
        """Log-odds of every label, from the model's probabilities of all and what is known.

        Args:
            probabilities: (batch, labels), the model's.
            values: (batch, labels), of what is known, in [0, 1].
            known: (batch, labels) bool.
            ridge: Variance of the noise of an observation, above 0.
        """
        pp, yp, yy = (part.double() for part in self.covariance)
        pp = pp + ridge * torch.eye(len(pp), dtype=pp.dtype, device=pp.device)
        gain = torch.linalg.solve(pp, yp.T)  # (labels of p, labels of y)
        left = (yy - yp @ gain).float()
        mean = self.mean[1] + (probabilities - self.mean[0]) @ gain.float()
        return _log_odds(conditional(mean, left, values, known, ridge))


def conditional(
    mean: Tensor, covariance: Tensor, values: Tensor, known: Tensor, ridge: float
) -> Tensor:
    """Mean of a Gaussian, given some of its variables with noise.

    Args:
        mean: (batch, n).
        covariance: (n, n).
        values: (batch, n), what was observed.
        known: (batch, n) bool; what isn't known is not looked at.
        ridge: Variance of the noise, above 0.

    Returns:
        (batch, n).
    """
    rows, group = torch.unique(known, dim=0, return_inverse=True)
    result = mean.clone()
    for number, mask in enumerate(rows):
        images = (group == number).nonzero()[:, 0]
        if not bool(mask.any()):
            continue
        own = covariance[mask][:, mask].double()
        own = own + ridge * torch.eye(len(own), dtype=own.dtype, device=own.device)
        gain = torch.linalg.solve(own, covariance[mask].double()).to(mean.dtype)
        missing = (values[images] - mean[images])[:, mask]
        result[images] = mean[images] + missing @ gain
    return result


def _log_odds(p: Tensor) -> Tensor:
    return p.clamp(_EDGE, 1 - _EDGE).logit()


_SCALE = 256.0
"""Covariances are stored multiplied by this: float16 has few digits near 0."""
