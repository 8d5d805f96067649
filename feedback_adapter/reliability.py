"""How often labels of a data set are wrong, from images and a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from feedback_adapter import guard
from feedback_adapter.batches import in_batches
from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.bound import BoundLabels
from feedback_adapter.evidence.doubtful import DoubtfulLabels
from feedback_adapter.evidence.mistakes import Wrong
from feedback_adapter.strategies.base import opinion_of

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter


def estimate_wrong(
    adapter: Adapter, images: Any, evidence: Evidence, *, apart: bool = False, batch: int = 64
) -> Wrong:
    """Estimate how often labels are told wrong, from how they disagree with a model.

    One estimate for many images is surer than each image's own, which `Labels(..., wrong=None)`
    makes: tell labels with `wrong=` what this returns.

    Args:
        adapter: The model; with label statistics, if it has them.
        images: As for `Adapter.refine`, at least some dozens.
        evidence: Labels of these images.
        apart: Whether to estimate the share of labels that hold and are told absent, and the
            share of those that don't and are told present, by themselves. Needs more images,
            some hundreds; it is what labels need that nobody tagged completely.
        batch: Images that go through the model at a time.

    Returns:
        The shares of both kinds of mistakes, equal unless `apart`.

    Raises:
        EvidenceError: The evidence isn't labels, or doesn't fit the model or the images.

    Example:
        >>> import torch, feedback_adapter as fa
        >>> adapter = fa.wrap(torch.nn.Linear(2, 2), labels=["dog", "snow"])
        >>> told = fa.Labels({"dog": 1, "snow": 0})
        >>> wrong = fa.estimate_wrong(adapter, torch.ones(4, 2), told)
        >>> 0 <= wrong.missed < 1
        True
    """
    inputs = adapter.inputs(images)
    bound = guard.bind(evidence, adapter.outputs, inputs.batch)
    if not isinstance(bound, BoundLabels):
        raise EvidenceError(
            f"Mistakes are estimated in labels, not in {type(evidence).__name__}: pass Labels."
        )
    before = in_batches(lambda rows: adapter.unrefined(inputs.take(rows)), inputs.batch, batch)
    told = DoubtfulLabels(bound.target, bound.weight, None)
    with torch.no_grad():
        return told.estimated(before, opinion_of(before, adapter.priors), apart=apart)
