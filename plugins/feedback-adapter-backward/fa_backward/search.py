"""MAP inference: from templates on top, greedily down, with a beam."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_backward.decoder import OFF
from fa_backward.frames import Frame
from fa_backward.gated import Posterior
from fa_backward.generative import Activations
from fa_backward.offsets import shift, window

Network = Callable[[Tensor], dict[str, Tensor]]
Place = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SearchOptions:
    """How far the search looks.

    Attributes:
        zooms: Magnifications of the image that are tried.
        halves: Also try frames shifted by half a cell of the top.
        top_reach: Offsets of templates, in cells of the top site.
        reach: Offsets of components, in cells, for each level below the top.
        candidates: Hypotheses that are scored exactly at the top.
        beam: How many of them go down; 1 is the greedy search of the paper.
        fine: How many different best ones are searched again in frames around them.
        weights: Each level's share in the score, from the top to the image.
        evidence: Whether each level listens to the scene.
        memory: Bytes that the largest intermediate tensor may have.
    """

    zooms: tuple[float, ...] = (0.9, 1.05, 1.22)
    halves: bool = True
    top_reach: int = 2
    reach: tuple[int, ...] = (0, 0, 0, 0)
    candidates: int = 60
    beam: int = 15
    fine: int = 3
    fine_zooms: tuple[float, ...] = (0.94, 1.0, 1.06)
    fine_shifts: tuple[float, ...] = (-0.25, 0.25)
    weights: tuple[float, ...] = (1.0, 1.0, 0.5, 0.25, 0.25)
    evidence: tuple[bool, ...] = (True, True, True, True, True)
    memory: int = 64 * 2**20


@dataclass(frozen=True)
class Hypotheses:
    """Assignments of H to one image, best first; all tensors have one row per hypothesis.

    Attributes:
        score: The weighted sum of log-odds and log-priors that ranks them, in nats.
        log_odds: (n, levels), each level's log p(scene | object) / p(scene | empty).
        template: (n,), gamma on top; `offset` (n, 2) is delta there, in cells.
        components: (n, levels - 1), gamma below the top; `moves` (n, levels - 1, 2) is delta.
        frame: The frame of each.
        mask: (n, H, W), probability that a pixel shows the object.
        amodal: (n, H, W), the same with hidden parts.
        picture: (n, 3, H, W), the expected object, in the image's encoding.
    """

    score: Tensor
    log_odds: Tensor
    template: Tensor
    offset: Tensor
    components: Tensor
    moves: Tensor
    frame: tuple[Frame, ...]
    mask: Tensor
    amodal: Tensor
    picture: Tensor

    def __len__(self) -> int:
        return len(self.score)

    def centres(self, side: int) -> Tensor:
        """(n, 2), y and x from -1 to 1 of each hypothesis; `side` is the top's, in cells."""
        cells = (self.offset * 2 / side).tolist()
        pairs = zip(self.frame, cells, strict=True)
        return torch.tensor([frame.place(y, x) for frame, (y, x) in pairs])


@torch.no_grad()
def search(
    model: Activations,
    network: Network,
    image: Tensor,
    log_prior: Tensor,
    options: SearchOptions = SearchOptions(),
    place: Place | None = None,
) -> Hypotheses:
    """The best explanations of one image by one object.

    Args:
        model: A fitted model.
        network: Images (n, 3, H, W) to activations by site name.
        image: (3, H, W), encoded.
        log_prior: (categories,), in nats; -inf excludes a category.
        options: How far to look.
        place: (n, 2) centres, y and x from -1 to 1, to log-priors (n,).
    """
    cell = 2 / model.shapes[model.names[0]][1]  # of the top, in a frame's unit
    steps = (0.0, cell / 2) if options.halves else (0.0,)
    frames = [Frame(z, dy, dx) for z in options.zooms for dy in steps for dx in steps]
    found = _search(model, network, image, log_prior, options, place, frames)
    if not options.fine:
        return found
    around = []
    for index, (y, x) in _different(found, cell, options.fine):
        for zoom in options.fine_zooms:
            z = found.frame[index].zoom * zoom
            steps = [cell * step for step in options.fine_shifts]
            around += [Frame(1, 0, 0).around(y, x, z, dy, dx) for dy in steps for dx in steps]
    closer = replace(options, top_reach=0)
    return _search(model, network, image, log_prior, closer, place, around)


def _different(found: Hypotheses, cell: float, count: int):
    """The best hypotheses whose centres lie at least three quarters of a cell apart."""
    kept: list[tuple[int, tuple[float, float]]] = []
    for index, (y, x) in enumerate(found.centres(round(2 / cell)).tolist()):
        if all(math.hypot(y - b, x - a) > 0.75 * cell for _, (b, a) in kept):
            kept.append((index, (y, x)))
        if len(kept) == count:
            break
    return kept


def _search(model, network, image, log_prior, options, place, frames) -> Hypotheses:
    views = torch.cat([frame.look(image[None]) for frame in frames])
    found = model.normalise(network(views))
    allowed = torch.where(torch.isfinite(log_prior[model.templates.category]))[0]
    prior = _template_prior(model, log_prior)
    rough = rough_scores(model, found[0], allowed, options) + prior[allowed][:, None]
    offsets = window(options.top_reach)
    if place is not None:
        rough = rough + _place_prior(model, frames, offsets, place)[:, None]
    best = rough.flatten().topk(min(options.candidates, rough.numel())).indices
    view = best // (len(allowed) * len(offsets))
    template = allowed[best // len(offsets) % len(allowed)]
    offset = torch.tensor(offsets, device=best.device)[best % len(offsets)]
    extra = prior[template]
    if place is not None:
        extra = extra + _place_prior(model, frames, offsets, place)[view, best % len(offsets)]
    settled = _settle_top(model, template, offset, found[0][view] if options.evidence[0] else None)
    odds = [settled.log_odds.double().sum((1, 2, 3))]
    score = options.weights[0] * odds[0] + extra
    keep = score.topk(min(options.beam, len(score))).indices
    view, template, offset, score = view[keep], template[keep], offset[keep], score[keep]
    above, odds = settled.value[keep], [odds[0][keep]]
    parent, components, moves = template, [], []
    for level in range(1, len(model.names)):
        seen = found[level][view] if options.evidence[level] else None
        result, component, move, gain = _down(model, level, above, seen, parent, options)
        odds.append(result.log_odds.double().sum((1, 2, 3)))
        score = score + options.weights[level] * odds[-1] + gain
        components.append(component)
        moves.append(move)
        above, parent = result.value, component
    order = score.argsort(descending=True)
    scale = model.observations[-1].scale[:, None, None]
    back = lambda maps: torch.cat(  # noqa: E731
        [frames[int(view[i])].back(maps[i][None]) for i in order.tolist()]
    )
    return Hypotheses(
        score[order],
        torch.stack(odds, 1)[order],
        template[order],
        offset[order],
        torch.stack(components, 1)[order],
        torch.stack(moves, 1)[order],
        tuple(frames[int(view[i])] for i in order.tolist()),
        back(result.on * result.seen)[:, 0],
        back(result.on)[:, 0],
        back(above * scale),
    )


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
        mean, gate = model.templates.mean[chunk].float(), model.gates(chunk)
        fixed = -0.5 * mean**2 / variance - 0.5 * torch.log(2 * math.pi * variance)
        kernel = torch.cat(
            [gate * mean / variance, -0.5 * gate / variance, -gate, (gate * fixed).sum(1, True)], 1
        )
        scores.append(F.conv2d(padded, kernel, padding=options.top_reach).flatten(2))
    return torch.cat(scores, 1)


def _template_prior(model: Activations, log_prior: Tensor) -> Tensor:
    """log P(category) + log P(template | category) of each template, (K,)."""
    templates = model.templates
    every = torch.arange(len(templates.category), device=templates.category.device)
    return log_prior[templates.category] + templates.log_prior[templates.category, every]


def _place_prior(model, frames, offsets, place: Place) -> Tensor:
    side = model.shapes[model.names[0]][1]
    centres = [
        frame.place(down * 2 / side, right * 2 / side)
        for frame in frames
        for down, right in offsets
    ]
    return place(torch.tensor(centres)).view(len(frames), len(offsets))


def _settle_top(model: Activations, template, offset, found) -> Posterior:
    rows = zip(template.tolist(), offset.tolist(), strict=True)
    logit, mean = zip(
        *(
            (
                shift(model.templates.logit[k].float(), down, right, OFF),
                shift(model.templates.mean[k].float(), down, right, 1.0),
            )
            for k, (down, right) in rows
        ),
        strict=True,
    )
    return model.settle(0, torch.stack(logit), torch.stack(mean), found)


def _down(model: Activations, level: int, above, found, parent, options):
    """One level down: every hypothesis takes its best component and offset.

    Returns:
        What it settles on, component (n,), move (n, 2) and log-prior (n,).
    """
    logit, mean = model.predict(level, above)
    prior = model.log_bigram(level)[parent]
    moves = window(options.reach[level - 1])
    rows = torch.arange(len(above), device=above.device)
    if found is None:
        component = prior.argmax(1)
        result = model.settle(level, logit[rows, component], mean[rows, component], None)
        still = torch.zeros(len(rows), 2, dtype=torch.long, device=above.device)
        return result, component, still, prior[rows, component]
    background = None
    if level == len(model.names) - 1:
        background = model.scene_background(found, logit)
    size = mean[0].numel() * 4
    totals = []
    for chunk in rows.split(max(1, options.memory // size)):
        local = None if background is None else background[chunk][:, None]
        each = []
        for down, right in moves:
            moved = shift(logit[chunk], down, right, OFF), shift(mean[chunk], down, right, 1.0)
            settled = model.settle(level, *moved, found[chunk][:, None], local)
            each.append(settled.log_odds.double().sum((2, 3, 4)))
        totals.append(torch.stack(each, 2))
    total = options.weights[level] * torch.cat(totals) + prior[:, :, None]
    best = total.flatten(1).argmax(1)
    component, which = best // len(moves), best % len(moves)
    move = torch.tensor(moves, device=above.device)[which]
    chosen = [
        (shift(logit[i, k], *m, OFF), shift(mean[i, k], *m, 1.0))
        for i, (k, m) in enumerate(zip(component.tolist(), move.tolist(), strict=True))
    ]
    logits, means = (torch.stack(part) for part in zip(*chosen, strict=True))
    result = model.settle(level, logits, means, found, background)
    return result, component, move, prior[rows, component]
