"""Hard EM for the decoders, trained on what the search will give them at inference time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fa_backward.generative import Activations

OTHERS = 0.02  # weight of the components that didn't win, so that none dies
DIRICHLET = 1.0
EVIDENCE = 0.7  # how often a level sees its scene while the decoders are trained
RATE, WARM_UP = 2e-3, 50


@dataclass(frozen=True)
class Pairs:
    """Objects in scenes and alone, in their own frames.

    Attributes:
        template: (n,), for each object a template near its activations.
        found: Normalised activations of the scenes, by level.
        alone: The same of the objects on nothing.
        alpha: (n, 1, H, W), the objects' masks, hidden parts too.
    """

    template: Tensor
    found: list[Tensor]
    alone: list[Tensor]
    alpha: Tensor


def losses(model: Activations, pairs: Pairs, evidence: list[bool]) -> tuple[Tensor, list[Tensor]]:
    """One E-step (the component that predicts the truth best) and the M-step's loss.

    Args:
        model: Its decoders are trained.
        pairs: A batch.
        evidence: For each level, whether the level above it saw the scene.

    Returns:
        The loss, and the winning component of each level below the top, (n,) each.
    """
    with torch.no_grad():
        above = model.top(pairs.template, pairs.found[0] if evidence[0] else None).value
    loss, winners = above.new_zeros(()), []
    rows = torch.arange(len(above), device=above.device)
    for level in range(1, len(model.names)):
        logit, mean = model.predict(level, above.detach())
        each = model.mismatch(level, logit, mean, pairs.alone[level], pairs.alpha)
        winner = each.detach().argmin(1)
        loss = loss + each[rows, winner].mean() + OTHERS * each.mean()
        winners.append(winner)
        if level < len(model.names) - 1:
            with torch.no_grad():
                found = pairs.found[level] if evidence[level] else None
                above = model.settle(level, logit[rows, winner], mean[rows, winner], found).value
    return loss, winners


def fit_decoders(
    model: Activations,
    draw: Callable[[], Pairs],
    generator: torch.Generator,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    log: Callable[[dict], None] = lambda record: None,
) -> int:
    """Train the decoders, and count P(component | component above).

    Args:
        model: Its observation model and templates are fitted already.
        draw: Gives batches.
        generator: Draws at which levels a batch sees its scene.
        steps: How many, which anyone can repeat; or
        seconds: how long: the learning rate falls with the clock then.
        log: Called every 50 steps.

    Returns:
        The number of steps.
    """
    optimizer = torch.optim.Adam(model.decoders.parameters(), RATE)
    begin, step = time.monotonic(), 0
    share = lambda: step / steps if steps else (time.monotonic() - begin) / (seconds or 60)  # noqa: E731
    while (done := share()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
        chance = torch.rand(len(model.names), generator=generator, device=generator.device)
        loss, _ = losses(model, draw(), (chance < EVIDENCE).tolist())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.decoders.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            log({"decoder step": step, "done": round(done, 3), "loss": round(loss.item(), 4)})
    count_components(model, draw)
    return step


@torch.no_grad()
def count_components(model: Activations, draw: Callable[[], Pairs], batches: int = 30) -> None:
    """Set the bigrams from the winners of some batches, with a Dirichlet prior."""
    levels = range(1, len(model.names))
    counts = [torch.full_like(model.log_bigram(level), DIRICHLET) for level in levels]
    for _ in range(batches):
        pairs = draw()
        _, winners = losses(model, pairs, [True] * len(model.names))
        for count, upper, lower in zip(counts, [pairs.template, *winners], winners, strict=False):
            one = torch.ones(len(lower), device=lower.device)
            count.index_put_((upper, lower), one, accumulate=True)
    for level, count in zip(levels, counts, strict=True):
        model.log_bigram(level).copy_((count / count.sum(1, keepdim=True)).log())
