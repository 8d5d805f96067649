"""Which question is worth most: by what its answer is expected to mend, of it and of what is left.

Let p be the probability of a label and t the threshold above which it counts as there. Deciding so
is expected to cost min(p (1 - t), (1 - p) t): what is missed costs 1 - t, what is invented t, and
at the threshold both cost the same. For t = 1/2 that is half the chance to be wrong. A question
gains its label's cost, since the answer leaves no doubt, and what the other labels' costs are
expected to sink by:

    gain_j = cost(p_j) + sum over i of cost(p_i) - p_j cost(yes_ij) - (1 - p_j) cost(no_ij)
    yes_ij = p_i + d_ij (1 - p_j)        no_ij = p_i - d_ij p_j

over the labels i that are left. An answer y_j moves p_i by d_ij (y_j - p_j), to first order in how
the errors of logits go together (K, the couplings of a checkpoint's label statistics; see Rasmussen
and Williams, "Gaussian Processes for Machine Learning", 2006, equation 2.19, with 1 / (p (1 - p))
for the noise of an answer, as in Laplace's approximation):

    d_ij = p_i (1 - p_i) K_ij / (1 + K_jj p_j (1 - p_j))

Nothing is refined for it. The expected p_i is p_i whatever the answer, and the cost is concave, so
no question's gain is below its own label's cost. Without couplings it is just that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from fa_annotate.errors import AnnotateError

__all__ = ["gains", "next_image", "next_label"]


def next_label(
    probabilities: Tensor,
    asked: Collection[int],
    *,
    couplings: Tensor | None = None,
    threshold: float = 0.5,
) -> list[tuple[int, float]]:
    """The labels that can be asked for, the most useful first, each with its gain.

    Args:
        probabilities: (labels,), of one photo by now, in [0, 1].
        asked: Indices of the labels that were answered or skipped.
        couplings: (labels, labels), `adapter.priors[output].couplings`, if the checkpoint has
            statistics.
        threshold: The probability, between 0 and 1, above which a label counts as there.

    Raises:
        AnnotateError: The shapes don't fit, or a number is out of its range.

    Example:
        >>> next_label(torch.tensor([0.9, 0.6, 0.2]), {0}, threshold=0.5)[0][0]
        1
    """
    if probabilities.ndim != 1:
        raise AnnotateError(
            f"probabilities is {tuple(probabilities.shape)}: it must be (labels,), of one photo."
        )
    (found,) = gains(probabilities[None], _mask([asked], probabilities[None]), couplings, threshold)
    order = found.argsort(descending=True, stable=True).tolist()
    return [(label, float(found[label])) for label in order if label not in asked]


def next_image(
    probabilities: Tensor,
    asked: Sequence[Collection[int]] | None = None,
    *,
    couplings: Tensor | None = None,
    threshold: float = 0.5,
    questions: int = 5,
) -> list[tuple[int, float]]:
    """The photos, the most useful first: that whose best questions gain most together.

    Args:
        probabilities: (photos, labels), by now, in [0, 1].
        asked: For each photo the indices of what was answered or skipped; by default nothing.
        couplings: See `next_label`.
        threshold: See `next_label`.
        questions: How many questions a photo is likely to get, at least 1.

    Returns:
        For each photo its index, and the sum of its best gains.

    Raises:
        AnnotateError: The shapes don't fit, or a number is out of its range.

    Example:
        >>> [image for image, _ in next_image(torch.tensor([[0.9, 0.1], [0.5, 0.4]]))]
        [1, 0]
    """
    known = _mask(asked or [()] * len(probabilities), probabilities)
    found = [
        gains(probabilities[row : row + 1], known[row : row + 1], couplings, threshold)[0]
        for row in range(len(probabilities))
    ]
    best = [
        float(own[~mask].topk(min(questions, int((~mask).sum()))).values.sum())
        for own, mask in zip(found, known, strict=True)
    ]
    return sorted(enumerate(best), key=lambda pair: -pair[1])


def gains(
    probabilities: Tensor, asked: Tensor, couplings: Tensor | None, threshold: float
) -> Tensor:
    """What the question for each label is expected to gain; see above.

    Args:
        probabilities: (photos, labels), in [0, 1].
        asked: (photos, labels) bool, of what was answered or skipped: other answers mend nothing
            there.
        couplings: (labels, labels) or `None`.
        threshold: Between 0 and 1.

    Returns:
        (photos, labels), at least 0; 0 for what was asked for.

    Raises:
        AnnotateError: The shapes don't fit, or a number is out of its range.
    """
    p = probabilities.detach().float().cpu()
    if p.ndim != 2 or not bool(((p >= 0) & (p <= 1)).all()):
        raise AnnotateError(
            f"probabilities is {tuple(p.shape)}: it must be (photos, labels) in [0, 1]."
        )
    if not 0 < threshold < 1:
        raise AnnotateError(f"threshold={threshold!r} must be between 0 and 1.")
    own = _cost(p, threshold)
    if couplings is None:
        return own.masked_fill(asked, 0)
    if couplings.shape != (p.shape[1], p.shape[1]):
        raise AnnotateError(
            f"couplings is {tuple(couplings.shape)}, but there are {p.shape[1]} labels."
        )
    k = couplings.detach().float().cpu()
    spread = p * (1 - p)
    move = k * spread[:, None, :] / (1 + k.diagonal() * spread)[:, :, None]  # (photos, j, i)
    yes, others = p[:, :, None], p[:, None, :]
    later = yes * _cost((others + move * (1 - yes)).clamp(0, 1), threshold)
    later += (1 - yes) * _cost((others - move * yes).clamp(0, 1), threshold)
    sinks = (own[:, None, :] - later).clamp(min=0)
    sinks.diagonal(dim1=1, dim2=2).zero_()
    sinks = sinks.masked_fill(asked[:, None, :], 0)
    return (own + sinks.sum(2)).masked_fill(asked, 0)


def _cost(p: Tensor, threshold: float) -> Tensor:
    return torch.minimum(p * (1 - threshold), (1 - p) * threshold)


def _mask(asked: Sequence[Collection[int]], probabilities: Tensor) -> Tensor:
    mask = torch.zeros(probabilities.shape, dtype=torch.bool)
    if probabilities.ndim != 2 or len(asked) != len(mask):
        raise AnnotateError(
            f"probabilities is {tuple(probabilities.shape)}: it must be (photos, labels), and "
            f"asked must say for each photo what was asked, not for {len(asked)}."
        )
    for row, labels in zip(mask, asked, strict=True):
        row[list(labels)] = True
    return mask
