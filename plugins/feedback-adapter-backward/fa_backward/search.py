"""MAP inference: from templates on top, greedily down, with a beam."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fa_backward.decoder import OFF
from fa_backward.frames import Frame
from fa_backward.gated import Posterior
from fa_backward.generative import Activations
from fa_backward.offsets import shift, window
from fa_backward.top import (
    Network,
    Place,
    best_places,
    moved_templates,
    place_prior,
    rough_scores,
    template_prior,
)


@dataclass(frozen=True)
class SearchOptions:
    """How far the search looks.

    Attributes:
        zooms: Magnifications of the image that are tried.
        halves: Also try frames shifted by half a cell of the top.
        top_reach: Offsets of templates, in cells of the top site.
        reach: Offsets of components, in cells, for each level below the top.
        candidates: Hypotheses that are scored exactly at the top.
        beam: How many of them go down to each level below the top; the last number holds for
            the rest. (1,) is the greedy search of the paper.
        fine: How many different places, those of the best templates, are searched in frames
            around them. With 0 the best templates are followed down where they are, as in the
            paper.
        fine_beam: `beam` at each of these places.
        fine_zooms: Its magnifications, times the first ones.
        fine_shifts: Its shifts, in cells of the top.
        shares: Each level's share in the score, from the top to the image.
        evidence: Whether each level listens to the scene.
        piece: Whether an object is in one piece: of a mask, only the part that hangs together
            around the hypothesis's place is kept.
        guided: Rank hypotheses by their agreement with the network's own map of categories,
            where there is one, and not by their scores.
        memory: Bytes that the largest intermediate tensor may have.
    """

    zooms: tuple[float, ...] = (0.9, 1.05, 1.22)
    halves: bool = True
    top_reach: int = 2
    reach: tuple[int, ...] = (0, 0, 0, 0)
    candidates: int = 60
    beam: tuple[int, ...] = (10, 6, 4, 3)
    fine: int = 4
    fine_beam: tuple[int, ...] = (5, 4, 3, 3)
    fine_zooms: tuple[float, ...] = (0.94, 1.0, 1.06)
    fine_shifts: tuple[float, ...] = (-0.25, 0.25)
    shares: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    evidence: tuple[bool, ...] = (True, True, True, True, True)
    piece: bool = True
    guided: bool = True
    memory: int = 4 * 2**20


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

    def take(self, rows: Tensor) -> "Hypotheses":
        """Some of them, in the order of `rows`."""
        parts = {name: value[rows] for name, value in vars(self).items() if name != "frame"}
        return Hypotheses(**parts, frame=tuple(self.frame[i] for i in rows.tolist()))

    @classmethod
    def join(cls, found: Sequence["Hypotheses"]) -> "Hypotheses":
        """Those of several searches of one image, one after another."""
        names = [f.name for f in fields(cls) if f.name != "frame"]
        parts = {name: torch.cat([getattr(each, name) for each in found]) for name in names}
        return cls(**parts, frame=sum((each.frame for each in found), ()))

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
    closer = replace(options, top_reach=0, beam=options.fine_beam)
    if not options.fine:
        return search_frames(model, network, image, log_prior, options, place, frames)
    found = []
    for (y, x), near in best_places(model, network, image, log_prior, options, place, frames):
        around = [
            Frame(1, 0, 0).around(y, x, near * zoom, cell * down, cell * right)
            for zoom in options.fine_zooms
            for down in options.fine_shifts
            for right in options.fine_shifts
        ]
        found.append(search_frames(model, network, image, log_prior, closer, place, around))
    every = Hypotheses.join(found)
    return every.take(every.score.argsort(descending=True))


def search_frames(model, network, image, log_prior, options, place, frames) -> Hypotheses:
    """One search in given frames only, a list of `Frame`. See `search`."""
    views = torch.cat([frame.look(image[None]) for frame in frames])
    found = model.normalise(network(views))
    allowed = torch.where(torch.isfinite(log_prior[model.templates.category]))[0]
    prior = template_prior(model, log_prior)
    rough = rough_scores(model, found[0], allowed, options) + prior[allowed][:, None]
    offsets = window(options.top_reach)
    if place is not None:
        rough = rough + place_prior(model, frames, offsets, place)[:, None]
    best = rough.flatten().topk(min(options.candidates, rough.numel())).indices
    view = best // (len(allowed) * len(offsets))
    template = allowed[best // len(offsets) % len(allowed)]
    offset = torch.tensor(offsets, device=best.device)[best % len(offsets)]
    extra = prior[template]
    if place is not None:
        extra = extra + place_prior(model, frames, offsets, place)[view, best % len(offsets)]
    logit, mean = moved_templates(model, template, offset)
    seen = found[0][view] if options.evidence[0] else None
    odds = torch.zeros(len(view)).double() if seen is None else model.odds(0, logit, mean, seen)
    keep = (options.shares[0] * odds + extra).topk(min(options.beam[0], len(extra))).indices
    settled = model.settle(0, logit[keep], mean[keep], None if seen is None else seen[keep])
    beam = _Beam(
        options.shares[0] * odds[keep] + extra[keep],
        settled,
        template[keep],
        view[keep],
        template[keep],
        offset[keep],
        [odds[keep]],
        [],
        [],
    )
    for level in range(1, len(model.names)):
        beam = beam.best(options.beam[min(level, len(options.beam)) - 1])
        seen = found[level][beam.view] if options.evidence[level] else None
        beam = _down(model, level, beam, seen, options)
    beam = beam.best(len(beam.score))
    scale = model.observations[-1].scale[:, None, None]
    views = tuple(frames[i] for i in beam.view.tolist())

    def back(maps: Tensor) -> Tensor:
        return torch.cat([f.back(m[None]) for f, m in zip(views, maps, strict=True)])

    last = beam.settled
    return Hypotheses(
        beam.score,
        torch.stack(beam.odds, 1),
        beam.template,
        beam.offset,
        torch.stack(beam.components, 1),
        torch.stack(beam.moves, 1),
        views,
        back(last.on * last.seen)[:, 0],
        back(last.on)[:, 0],
        back(last.value * scale),
    )


@dataclass(frozen=True)
class _Beam:
    """Partial assignments: what each has chosen so far, and what it expects at this level."""

    score: Tensor
    settled: Posterior
    parent: Tensor
    view: Tensor
    template: Tensor
    offset: Tensor
    odds: list[Tensor]
    components: list[Tensor]
    moves: list[Tensor]

    def best(self, count: int) -> "_Beam":
        """The best few, in order."""
        keep = self.score.argsort(descending=True)[:count]
        settled = Posterior(*(getattr(self.settled, f.name)[keep] for f in fields(Posterior)))
        return _Beam(
            self.score[keep],
            settled,
            self.parent[keep],
            self.view[keep],
            self.template[keep],
            self.offset[keep],
            [part[keep] for part in self.odds],
            [part[keep] for part in self.components],
            [part[keep] for part in self.moves],
        )


def _down(model: Activations, level: int, beam: _Beam, found: Tensor | None, options) -> _Beam:
    """One level down: every assignment takes its best component and offset."""
    size = math.prod(model.shapes[model.names[level]]) * model.log_bigram(level).shape[1] * 4
    parts = [
        _choose(model, level, beam.settled.value[rows], beam.parent[rows], seen, options)
        for rows in torch.arange(len(beam.score)).split(max(1, options.memory // size))
        for seen in [None if found is None else found[rows]]
    ]
    value, odds, component, move = (torch.cat(each) for each in list(zip(*parts, strict=True))[:4])
    settled = [part[4] for part in parts]
    names = [f.name for f in fields(Posterior)]
    return replace(
        beam,
        score=beam.score + value,
        settled=Posterior(*(torch.cat([getattr(s, name) for s in settled]) for name in names)),
        parent=component,
        odds=[*beam.odds, odds],
        components=[*beam.components, component],
        moves=[*beam.moves, move],
    )


def _choose(model, level, above, parent, found, options):
    """For each assignment the best component and offset: gain, log-odds, both, and `settle`."""
    logit, mean = model.predict(level, above)
    prior, rows = model.log_bigram(level)[parent], torch.arange(len(parent))
    moves, background, weight = window(options.reach[level - 1]), None, options.shares[level]
    if found is None:
        moves, odds = [(0, 0)], torch.zeros_like(prior)[..., None].double()
    else:
        if level == len(model.names) - 1:
            background = model.scene_background(found, logit)
        if background is None:
            background = model.log_background(level, found)
        scene = found[:, None], background[:, None]
        moved = ((shift(logit, *m, OFF), shift(mean, *m, 1.0)) for m in moves)
        odds = torch.stack([model.odds(level, *pair, *scene) for pair in moved], 2)
    value, best = (weight * odds + prior[..., None]).flatten(1).max(1)
    component = best // len(moves)
    move = torch.tensor(moves, device=best.device)[best % len(moves)]
    chosen = [
        (shift(logit[i, k], *m, OFF), shift(mean[i, k], *m, 1.0))
        for i, (k, m) in enumerate(zip(component.tolist(), move.tolist(), strict=True))
    ]
    logits, means = (torch.stack(part) for part in zip(*chosen, strict=True))
    settled = model.settle(level, logits, means, found, background)
    return value, odds.flatten(1)[rows, best], component, move, settled
