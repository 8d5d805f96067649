"""Gaussians over labels: what some labels' values say of the others, in closed form.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006: equation 2.19
(`conditional`), section 5.4.2 (leaving one out), and algorithm 3.1 (`latent_move`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

NEWTON_STEPS = 4
CLIPPINGS = 30


def conditional(
    mean: Tensor, covariance: Tensor, values: Tensor, known: Tensor, ridge: float
) -> Tensor:
    """What to expect of each variable of a Gaussian, given the other ones that are known.

    Args:
        mean: (batch, n).
        covariance: (n, n).
        values: (batch, n), what was observed, with noise.
        known: (batch, n) bool; what isn't known is not looked at.
        ridge: Variance of the noise, above 0.

    Returns:
        (batch, n); what is known is expected from the other known ones, leaving it out.
    """
    result = mean.clone()
    for images, mask in _groups(known):
        cross = covariance[mask].double()
        own = cross[:, mask]
        inverse = torch.linalg.inv(own + ridge * torch.eye(len(own), device="cpu").to(own))
        missing = (values[images] - mean[images])[:, mask]
        found = mean[images] + missing @ (inverse @ cross).to(mean.dtype)
        left_out = (missing @ inverse.to(mean.dtype)) / inverse.diagonal().to(mean.dtype)
        found[:, mask] = values[images][:, mask] - left_out
        result[images] = found
    return result


def latent_move(logits: Tensor, covariance: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """How known labels move the logits of all labels, if the logits' errors are Gaussian.

    A label is present with the probability that its logit says, and the logits are
    `N(logits, covariance)`: the mean of their posterior (Laplace's approximation), found by
    Newton's method.

    Args:
        logits: (batch, n), in nats.
        covariance: (n, n), of the errors of logits, in nats squared, positive semidefinite.
        values: (batch, n), in [0, 1].
        known: (batch, n) bool.

    Returns:
        (batch, n), in nats; 0 for an image of which nothing is known.
    """
    result = torch.zeros_like(logits)
    for images, mask in _groups(known):
        cross = covariance[mask]
        own = cross[:, mask]
        start, told = logits[images][:, mask], values[images][:, mask]
        move = torch.zeros_like(start)
        pull = move
        for _ in range(NEWTON_STEPS):
            p = torch.sigmoid(start + move)
            weight = (p * (1 - p)).clamp(min=1e-6)
            root = weight.sqrt()
            aim = weight * move + told - p
            system = root[:, :, None] * own * root[:, None, :] + torch.eye(
                len(own), device="cpu"
            ).to(own)
            rest = torch.linalg.solve(system, (root * (aim @ own))[..., None])[..., 0]
            pull = aim - root * rest
            move = pull @ own
        result[images] = pull @ cross
    return result


def nearest_covariance(matrix: Tensor) -> Tensor:
    """A positive semidefinite matrix near to one of which the diagonal may be anything.

    Args:
        matrix: (n, n), symmetric; its diagonal isn't looked at.
    """
    found = matrix.clone()
    diagonal = found.diagonal()
    diagonal.zero_()
    clipped = found
    for _ in range(CLIPPINGS):
        values, vectors = torch.linalg.eigh(found)
        clipped = (vectors * values.clamp(min=0)) @ vectors.T
        diagonal.copy_(clipped.diagonal())
    return clipped


def _groups(known: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each set of known variables that isn't empty: which images have it, and its mask."""
    masks, group = torch.unique(known, dim=0, return_inverse=True)
    for number, mask in enumerate(masks):
        if bool(mask.any()):
            yield (group == number).nonzero()[:, 0], mask
