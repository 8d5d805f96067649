"""The top site: how well each template explains each place."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_backward.decoder import OFF
from fa_backward.frames import Frame
from fa_backward.generative import Activations
from fa_backward.offsets import shift, window

Network = Callable[[Tensor], dict[str, Tensor]]
Place = Callable[[Tensor], Tensor]

APART = 0.75  # of a cell: places that are nearer to each other are one
LOOKED_AT = 80  # places whose best template is scored exactly
UNLIKELY = 3.0  # nats: places that are less probable than the best one by more are left out


def best_places(
    model: Activations,
    network: Network,
    image: Tensor,
    log_prior: Tensor,
    options,
    place: Place | None,
    frames: list[Frame],
) -> list[tuple[tuple[float, float], float]]:
    """Where the best templates are: y and x from -1 to 1, and the frame's zoom, best first.

    The best template of each offset in each frame stands for its place. At most `options.fine`
    places are kept, none within `APART` of a better one.
    """
    found = model.normalise(network(torch.cat([frame.look(image[None]) for frame in frames])))[0]
    allowed = torch.where(torch.isfinite(log_prior[model.templates.category]))[0]
    prior = template_prior(model, log_prior)
    offsets = window(options.top_reach)
    rough = rough_scores(model, found, allowed, options) + prior[allowed][:, None]
    score, template = rough.max(1)
    if place is not None:
        likely = place_prior(model, frames, offsets, place)
        score = torch.where(likely < likely.max() - UNLIKELY, -torch.inf, score + likely)
    best = score.flatten().topk(min(LOOKED_AT, score.numel()))
    best = best.indices[best.values > -torch.inf]
    view, template = best // len(offsets), allowed[template.flatten()[best]]
    offset = torch.tensor(offsets, device=best.device)[best % len(offsets)]
    odds = model.odds(0, *moved_templates(model, template, offset), found[view])
    if place is not None:
        odds = odds + likely.flatten()[best]
    side = model.shapes[model.names[0]][1]
    cells = (offset * 2 / side).tolist()
    kept: list[tuple[tuple[float, float], float]] = []
    for i in (odds + prior[template]).argsort(descending=True).tolist():
        frame = frames[int(view[i])]
        y, x = frame.place(*cells[i])
        if all(math.hypot(y - b, x - a) > APART * 2 / side for (b, a), _ in kept):
            kept.append(((y, x), frame.zoom))
        if len(kept) == options.fine:
            break
    return kept


def rough_scores(model: Activations, found: Tensor, allowed: Tensor, options) -> Tensor:
    """A lower bound of the top's log-odds for all templates and offsets, as one convolution.

    log(1 - q + q r) >= q log r for q = pi v, and log r is a sum of f, f^2 and log p_background
    with fixed factors. Shape (frames, templates, offsets).
    """
    variance = model.spread(0) ** 2 + model.noise(0) ** 2
    background = model.log_background(0, found)
    padded = torch.cat([found, found**2, background, torch.ones_like(found[:, :1])], 1)
    size = padded.shape[1] * padded.shape[2] * padded.shape[3] * 4
    scores = []
    for chunk in allowed.split(max(1, options.memory // size)):
        mean, gate = model.templates.mean[chunk], model.gates(chunk)
        fixed = -0.5 * mean**2 / variance - 0.5 * torch.log(2 * math.pi * variance)
        kernel = torch.cat(
            [gate * mean / variance, -0.5 * gate / variance, -gate, (gate * fixed).sum(1, True)], 1
        )
        scores.append(F.conv2d(padded, kernel, padding=options.top_reach).flatten(2))
    return torch.cat(scores, 1)


def template_prior(model: Activations, log_prior: Tensor) -> Tensor:
    """log P(category) + log P(template | category) of each template, (K,)."""
    templates = model.templates
    every = torch.arange(len(templates.category), device=templates.category.device)
    return log_prior[templates.category] + templates.log_prior[templates.category, every]


def place_prior(model, frames, offsets, place: Place) -> Tensor:
    """log P(place) of each offset in each frame, (frames, offsets)."""
    side = model.shapes[model.names[0]][1]
    centres = [
        frame.place(down * 2 / side, right * 2 / side)
        for frame in frames
        for down, right in offsets
    ]
    return place(torch.tensor(centres)).view(len(frames), len(offsets))


def moved_templates(model: Activations, template: Tensor, offset: Tensor):
    """Gates' logits and means of some templates, each moved by its own offset."""
    templates, rows = model.templates, zip(template.tolist(), offset.tolist(), strict=True)
    pairs = [
        (
            shift(templates.logit[k], down, right, OFF),
            shift(templates.mean[k], down, right, 1.0),
        )
        for k, (down, right) in rows
    ]
    return torch.stack([logit for logit, _ in pairs]), torch.stack([mean for _, mean in pairs])
