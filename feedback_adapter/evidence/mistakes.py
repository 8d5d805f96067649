"""What to believe of told labels when some of them are told wrong.

A told label is a noisy observation. What the model says of it without having been told, its
opinion, and how often labels are told wrong give by Bayes' rule the probability that it holds:
that probability is then the evidence, in place of the label. How often labels are told wrong is
itself estimated from how often they disagree with the opinion, by expectation maximisation
(Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm",
1979, with the model as the second observer).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from feedback_adapter.options import check, within

PRIOR = (0.5, 50.0)
"""Beta prior of an image's share of wrong labels: as if .5 of 50.5 labels had been seen wrong.
Chosen on dev: a stronger one costs robustness, a weaker one precision where nothing is wrong."""

ROUNDS = 8
ROUNDS_APART = 40
"""Two shares tell themselves apart slowly."""


@dataclasses.dataclass(frozen=True)
class Wrong:
    """How often labels are told wrong.

    Args:
        missed: Share of the labels that hold which are told to be absent, in [0, 0.99].
        invented: Share of the labels that don't hold which are told to be present, in [0, 0.99].

    Raises:
        OptionsError: A share is out of its range.

    Example:
        >>> Wrong(missed=0.3, invented=0.0)  # as where people tag only what strikes them
        Wrong(missed=0.3, invented=0.0)
    """

    missed: float
    invented: float

    def __post_init__(self) -> None:
        check(self, {"missed": within(0, 0.99), "invented": within(0, 0.99)})

    @classmethod
    def of(cls, share: float | Wrong | None) -> Wrong | None:
        """The same share of both kinds of mistakes, given as a number; the rest as it is."""
        return share if share is None or isinstance(share, Wrong) else cls(share, share)


CERTAIN = Wrong(0.0, 0.0)
"""Nothing is told wrong."""


def believed(opinion: Tensor, told: Tensor, missed: Tensor, invented: Tensor) -> Tensor:
    """The probability that a label holds, given what is told of it.

    Args:
        opinion: Log-odds of each label without its own telling, in nats.
        told: Of the same shape, 1 (present) or 0 (absent).
        missed: See `Wrong`; any shape that broadcasts.
        invented: See `Wrong`.
    """
    tiny = torch.finfo(opinion.dtype).tiny
    present = (1 - missed).log() - invented.clamp(min=tiny).log()
    absent = missed.clamp(min=tiny).log() - (1 - invented).log()
    return torch.sigmoid(opinion + torch.where(told > 0.5, present, absent))


def estimate_each(opinion: Tensor, told: Tensor, known: Tensor) -> Tensor:
    """Each image's own share of wrong labels, (batch, 1), whatever its batch mates are.

    Args:
        opinion: (batch, labels), see `believed`.
        told: (batch, labels), 1 or 0.
        known: (batch, labels) bool: what is told.
    """
    first, second = PRIOR
    share = torch.full_like(opinion[:, :1], first / (first + second))
    for _ in range(ROUNDS):
        wrong = _doubt(opinion, told, share, share) * known
        count = known.sum(1, keepdim=True)
        share = (wrong.sum(1, keepdim=True) + first) / (count + first + second)
    return share


def estimate(opinion: Tensor, told: Tensor, known: Tensor, *, apart: bool = False) -> Wrong:
    """The share of wrong labels of all images together; see `estimate_each`.

    Args:
        opinion: (batch, labels).
        told: (batch, labels), 1 or 0.
        known: (batch, labels) bool, of which some are true.
        apart: Whether labels that are missed and labels that are invented have shares of their
            own, instead of one for both.
    """
    opinion, told = opinion[known], told[known]
    missed = invented = torch.full_like(opinion[:1], 0.05)
    for _ in range(ROUNDS_APART if apart else ROUNDS):
        if apart:
            holds = believed(opinion, told, missed, invented)
            missed = (holds * (1 - told)).sum() / holds.sum().clamp(min=1e-6)
            invented = ((1 - holds) * told).sum() / (1 - holds).sum().clamp(min=1e-6)
        else:
            missed = invented = _doubt(opinion, told, missed, invented).mean()
    return Wrong(min(float(missed), 0.99), min(float(invented), 0.99))


def _doubt(opinion: Tensor, told: Tensor, missed: Tensor, invented: Tensor) -> Tensor:
    """The probability that each told label is wrong."""
    return (told - believed(opinion, told, missed, invented)).abs()
