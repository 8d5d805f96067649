"""The gated observation: each element is on or off, and may be hidden.

An element of the object is on with probability pi; if on, its value is a ~ N(mean, s0^2).
The scene shows f ~ N(a, s1^2) where the element is on and nothing hides it (probability v),
and f ~ background elsewhere. Everything is in closed form, and compared with an empty scene.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 80.0  # exp of more than this is too close to float32's end


@dataclass(frozen=True)
class Posterior:
    """What a hypothesis says of each element once the scene is seen.

    Attributes:
        value: The expected value of the object's element (0 where it is off).
        log_odds: log p(scene | hypothesis) / p(scene | empty), one number per element, nats.
        on: Probability that the object has this element.
        seen: Probability that it is seen, given that it is on.
    """

    value: Tensor
    log_odds: Tensor
    on: Tensor
    seen: Tensor


def log_ratio(found: Tensor, mean: Tensor, variance: Tensor, log_background: Tensor) -> Tensor:
    """log N(found; mean, variance) - log p_background(found), per element, in nats."""
    gauss = -0.5 * (found - mean) ** 2 / variance - 0.5 * torch.log(2 * math.pi * variance)
    return gauss - log_background


def log_odds(
    gate: Tensor,
    mean: Tensor,
    variance: Tensor,
    found: Tensor,
    log_background: Tensor,
) -> Tensor:
    """The log-odds of `posterior`, summed over all elements of each hypothesis, much faster.

    log(1 + gate (r - 1)), where r is cut at exp(20) (exp(80) where all channels share a gate):
    no element of a fitted model reaches it. The logarithm is taken of products over up to four
    channels.

    Args:
        gate: (..., C or 1, H, W), the probability that an element is on and seen.
        mean: (..., C, H, W), the value if on.
        variance: s0^2 + s1^2, broadcasts with `mean`.
        found: The scene's activations, broadcasts with `mean`.
        log_background: log density of `found` under the background, broadcasts with `mean`.

    Returns:
        (...,), float64 nats.
    """
    ratio = (found - mean).square_().mul_(-0.5 / variance)
    ratio.sub_(log_background + 0.5 * torch.log(2 * math.pi * variance))
    if gate.shape[-3] == 1:
        ratio = ratio.sum(-3, keepdim=True)
    fold = next(f for f in (4, 2, 1) if gate.shape[-3] % f == 0)
    odds = ratio.clamp_(max=LARGEST / fold).exp_().sub_(1).mul_(gate).add_(1)
    while odds.shape[-3] > gate.shape[-3] // fold:
        one, other = odds.chunk(2, -3)
        odds = one * other
    return odds.log_().sum((-3, -2, -1), dtype=torch.float64)


def posterior(
    logit: Tensor,
    mean: Tensor,
    spread: Tensor,
    found: Tensor,
    noise: Tensor,
    log_background: Tensor,
    visible: float,
) -> Posterior:
    """Combine a hypothesis with a scene, element by element.

    Args:
        logit: log pi / (1 - pi), (..., C, H, W), or (..., 1, H, W) for one gate that all
            channels share: their evidence is summed.
        mean: (..., C, H, W), the value if on.
        spread: s0, broadcasts with `mean`.
        found: The scene's activations, broadcasts with `mean`.
        noise: s1, broadcasts with `mean`.
        log_background: log density of `found` under the background.
        visible: v, between 0 and 1; at 0 the scene says nothing.
    """
    variance = spread**2 + noise**2
    ratio = log_ratio(found, mean, variance, log_background)
    if logit.shape[-3] == 1:
        ratio = ratio.sum(-3, keepdim=True)
    visible = min(max(visible, 1e-6), 1 - 1e-6)
    shown = ratio.clamp(max=LARGEST).exp().mul_(visible)
    either = shown + (1 - visible)
    seen = shown / either
    on, off = torch.sigmoid(logit) * either, torch.sigmoid(-logit)
    total = on + off
    on = on / total
    settled = (spread**2 * found + noise**2 * mean) / variance
    return Posterior(on * torch.lerp(mean, settled, seen), total.log(), on, seen)
