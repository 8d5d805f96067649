"""The published observation: an element shows in the scene where it exceeds a threshold.

'A Backward Pass Through a CNN Using a Generative Model of Its Activations'
(arXiv 1611.02767): f_td ~ N(mean, s0^2); the scene shows f_bu ~ N(f_td, s1^2) where
f_td >= threshold, and f_bu ~ N(beta, s2^2) elsewhere. The MAP of each element is in closed form.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fa_backward.errors import BackwardError


@dataclass(frozen=True)
class Thresholds:
    """Parameters of one site; each broadcasts with (C, H, W).

    Attributes:
        threshold: lambda, a number.
        noise: s1, per channel.
        beta: Mean of the background, a number.
        background: s2, its standard deviation, a number.
    """

    threshold: Tensor
    noise: Tensor
    beta: Tensor
    background: Tensor


def log_normal(value: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """log N(value; mean, deviation^2), per element."""
    return -0.5 * ((value - mean) / deviation) ** 2 - deviation.log() - 0.5 * math.log(2 * math.pi)


def map_elements(found: Tensor, mean: Tensor, spread: Tensor, site: Thresholds):
    """The most probable f_td of each element, and log p(f_td, f_bu), in nats.

    Args:
        found: f_bu.
        mean: What the site above predicts.
        spread: s0.
        site: The site's parameters.

    Returns:
        Two tensors that broadcast `found` and `mean`.
    """
    eta = (spread**2 * found + site.noise**2 * mean) / (spread**2 + site.noise**2)
    shown = torch.maximum(eta, site.threshold)
    silent = torch.minimum(mean, site.threshold)
    log_shown = log_normal(shown, mean, spread) + log_normal(found, shown, site.noise)
    log_silent = log_normal(silent, mean, spread) + log_normal(found, site.beta, site.background)
    better = log_shown >= log_silent
    return torch.where(better, shown, silent), torch.maximum(log_shown, log_silent)


def fit_thresholds(scene: Tensor, alone: Tensor, candidates: Tensor) -> tuple[Thresholds, Tensor]:
    """Maximum likelihood of the scene given the object, by enumerating thresholds.

    Given lambda, s1 (per channel), beta and s2 are means of squares in closed form.

    Args:
        scene: (n, C, H, W), f_bu.
        alone: (n, C, H, W), f_td.
        candidates: Thresholds to try, (t,).

    Returns:
        The best parameters, and the log-likelihood of each candidate, (t,) in float64 nats.

    Raises:
        BackwardError: No candidate leaves elements on both sides.
    """
    results = [_given(scene.double(), alone.double(), float(t)) for t in candidates]
    likelihoods = torch.tensor([value for _, value in results], dtype=torch.float64)
    if not torch.isfinite(likelihoods).any():
        raise BackwardError(
            f"No threshold of {candidates.tolist()} has elements above and below it: try others "
            f"between {float(alone.min()):.3g} and {float(alone.max()):.3g}."
        )
    return results[int(likelihoods.argmax())][0], likelihoods


def _given(scene: Tensor, alone: Tensor, threshold: float) -> tuple[Thresholds, float]:
    on = alone >= threshold
    count = on.sum((0, 2, 3))
    off = scene[~on]
    if not len(off) or not count.sum():
        return _parameters(scene, threshold, scene.new_ones(scene.shape[1]), 0.0, 1.0), -math.inf
    square = torch.where(on, (scene - alone) ** 2, 0.0).sum((0, 2, 3))
    pooled = (square.sum() / count.sum()).sqrt()
    noise = torch.where(count > 0, (square / count.clamp(min=1)).sqrt(), pooled).clamp(min=1e-3)
    beta, background = off.mean(), off.std(correction=0).clamp(min=1e-3)
    shown = log_normal(scene, alone, noise[:, None, None])
    silent = log_normal(scene, beta, background)
    value = float(torch.where(on, shown, silent).sum())
    return _parameters(scene, threshold, noise, float(beta), float(background)), value


def _parameters(scene, threshold, noise, beta, background) -> Thresholds:
    make = lambda number: scene.new_tensor(number).float()  # noqa: E731
    return Thresholds(make(threshold), noise[:, None, None].float(), make(beta), make(background))
