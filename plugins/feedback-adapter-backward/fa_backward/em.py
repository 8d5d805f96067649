"""Hard EM for P(H) P(F_td | H) as published: single convolutions, and counts with a prior."""

import math

import torch
from torch import Tensor

from fa_backward.decoder import Decoder

DIRICHLET = 1.0  # pseudo-count of every component after every component above
LEAST_SPREAD = 0.05


def hard_em(
    decoder: Decoder,
    above: Tensor,
    target: Tensor,
    parent: Tensor,
    parents: int,
    rounds: int = 8,
    steps: int = 20,
    rate: float = 0.02,
) -> tuple[Tensor, Tensor, list[float]]:
    """Fit one level's mixture; the decoder is changed in place.

    The E-step gives each object its most probable component. The M-step sets the counts and
    the spread in closed form and improves the convolutions by gradient steps, of which only
    those are kept that don't lower the objective: log P(H) + log P(F | H) + log Dirichlet.

    Args:
        decoder: A decoder without gates.
        above: (n, C', H', W'), activations of the site above.
        target: (n, C, H, W), activations of this site.
        parent: (n,), components of the site above.
        parents: How many there are.
        rounds: E- and M-steps.
        steps: Gradient steps in each M-step.
        rate: Their first size, halved whenever a step is refused.

    Returns:
        The components (n,), log P(component | parent), (parents, K), and the objective after
        each round, which never falls.
    """
    even = torch.full((parents, decoder.components), 1 / decoder.components).log()
    log_bigram, objectives = even.to(target.device), []
    component = _assign(decoder, above, target, log_bigram[parent])
    for _ in range(rounds):
        log_bigram = count(parent, component, log_bigram)
        _improve(decoder, above, target, component, steps, rate)
        component = _assign(decoder, above, target, log_bigram[parent])
        objectives.append(objective(decoder, above, target, parent, component, log_bigram))
    return component, log_bigram, objectives


def count(parent: Tensor, component: Tensor, like: Tensor) -> Tensor:
    """The MAP of log P(component | parent) under a Dirichlet prior; rows sum to 1."""
    counts = torch.full_like(like, DIRICHLET)
    ones = torch.ones(len(parent), device=like.device)
    counts.index_put_((parent, component), ones, accumulate=True)
    return (counts / counts.sum(1, keepdim=True)).log()


@torch.no_grad()
def objective(decoder, above, target, parent, component, log_bigram) -> float:
    """log P(H) + log P(F | H) + log Dirichlet (without its constant), in nats, float64."""
    rows = torch.arange(len(target), device=target.device)
    likelihood = _log_likelihoods(decoder, above, target)[rows, component].sum()
    prior = log_bigram.double()[parent, component].sum() + DIRICHLET * log_bigram.double().sum()
    return float(likelihood + prior)


@torch.no_grad()
def _assign(decoder, above, target, log_prior) -> Tensor:
    return (_log_likelihoods(decoder, above, target) + log_prior).argmax(1)


def _log_likelihoods(decoder: Decoder, above: Tensor, target: Tensor) -> Tensor:
    """log N(target; mean of each component, spread), (n, K), float64."""
    parts = []
    for piece, wanted in zip(above.split(32), target.split(32), strict=True):
        _, mean = decoder(piece)
        error = ((wanted[:, None] - mean) / decoder.spread).double().square().sum((2, 3, 4))
        parts.append(-0.5 * error)
    cells = target.shape[2] * target.shape[3]
    logs = (decoder.log_spread.double() + 0.5 * math.log(2 * math.pi)).sum() * cells
    return torch.cat(parts) - logs


def _improve(decoder, above, target, component, steps: int, rate: float) -> None:
    rows = torch.arange(len(target), device=target.device)
    weights = [p for name, p in decoder.named_parameters() if name != "log_spread"]
    best = _spread(decoder, above, target, component)
    optimizer = torch.optim.Adam(weights, rate)
    for _ in range(steps):
        kept = [w.detach().clone() for w in weights] + [decoder.log_spread.detach().clone()]
        optimizer.zero_grad()
        loss = -_log_likelihoods(decoder, above, target)[rows, component].mean()
        loss.backward()
        optimizer.step()
        value = _spread(decoder, above, target, component)
        if value < best:
            with torch.no_grad():
                for weight, old in zip([*weights, decoder.log_spread], kept, strict=True):
                    weight.copy_(old)
            for group in optimizer.param_groups:
                group["lr"] /= 2
        best = max(best, value)


@torch.no_grad()
def _spread(decoder: Decoder, above, target, component) -> float:
    """Set the spread in closed form; returns the log-likelihood."""
    rows, square = torch.arange(len(target), device=target.device), 0.0
    for index in rows.split(32):
        _, mean = decoder(above[index])
        error = target[index] - mean[torch.arange(len(index)), component[index]]
        square = square + error.double().square().sum((0, 2, 3))
    cells = len(target) * target.shape[2] * target.shape[3]
    decoder.log_spread.copy_((square / cells).sqrt().clamp(min=LEAST_SPREAD).log())
    return float(_log_likelihoods(decoder, above, target)[rows, component].sum())
