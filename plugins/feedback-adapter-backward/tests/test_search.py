"""The search, against exhaustive search and numbers that are known."""

import itertools
import math

import pytest
import torch

from fa_backward.decoder import OFF
from fa_backward.frames import Frame
from fa_backward.generative import IMAGE, Activations
from fa_backward.offsets import shift, window
from fa_backward.published import Published
from fa_backward.search import SearchOptions, search
from fa_backward.top import best_places, rough_scores

SHAPES = {"top": (6, 4, 4), "low": (5, 8, 8), IMAGE: (3, 16, 16)}
ONE_FRAME = SearchOptions(
    zooms=(1.0,), halves=False, fine=0, top_reach=1, reach=(0, 0), candidates=45, beam=(45,),
    shares=(1.0, 1.0, 1.0), evidence=(True, True, True),
)  # fmt: skip


def network(images):
    """Some fixed activations of the right shapes."""
    generator = torch.Generator().manual_seed(3)
    found = {IMAGE: images}
    for name in ("top", "low"):
        channels, side, _ = SHAPES[name]
        mix = torch.randn(channels, 3, generator=generator)
        small = torch.nn.functional.adaptive_avg_pool2d(images, side)
        found[name] = torch.einsum("cd,ndhw->nchw", mix, small).relu()
    return found


@pytest.fixture(params=[Activations, Published])
def model(request):
    """A model with random parameters, of both kinds."""
    torch.manual_seed(0)
    model = request.param(SHAPES, ("plane", "ship"), templates=5, components=3)
    templates = model.templates
    templates.logit.normal_()
    templates.mean.uniform_(0, 2)
    templates.category.copy_(torch.tensor([0, 0, 0, 1, 1]))
    own = templates.category[None] == torch.arange(2)[:, None]
    templates.log_prior.copy_((own / own.sum(1, keepdim=True)).log())
    for level, observation in enumerate(model.observations):
        observation.histogram.copy_(torch.randn(observation.histogram.shape).log_softmax(1))
        if level:
            table = torch.randn(model.log_bigram(level).shape)
            model.log_bigram(level).copy_(table.log_softmax(1))
    return model.eval()


def image(seed=0):
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def every_assignment(model, picture, prior):
    """Scores of all H by brute force: {(template, offset, component, component): score}."""
    found, scores = model.normalise(network(picture[None])), {}
    for k, (down, right) in itertools.product(range(5), window(1)):
        logit = shift(model.templates.logit[k].float(), down, right, OFF)[None]
        mean = shift(model.templates.mean[k].float(), down, right, 1.0)[None]
        top = model.settle(0, logit, mean, found[0])
        category = int(model.templates.category[k])
        first = top.log_odds.double().sum() + prior[category]
        first = first + model.templates.log_prior[category, k]
        logit, mean = model.predict(1, top.value)
        for a in range(3):
            low = model.settle(1, logit[:, a], mean[:, a], found[1])
            second = first + low.log_odds.double().sum() + model.log_bigram(1)[k, a]
            gates, colours = model.predict(2, low.value)
            background = model.scene_background(found[2], gates)
            for b in range(3):
                last = model.settle(2, gates[:, b], colours[:, b], found[2], background)
                total = second + last.log_odds.double().sum() + model.log_bigram(2)[a, b]
                scores[k, (down, right), a, b] = float(total)
    return scores


def test_scores_are_those_of_brute_force(model):
    prior = torch.tensor([0.4, 0.6]).log()
    scores = every_assignment(model, image(), prior)
    found = search(model, network, image(), prior, ONE_FRAME)
    assert len(found) == 45
    for i in range(len(found)):
        key = (
            int(found.template[i]),
            tuple(found.offset[i].tolist()),
            *found.components[i].tolist(),
        )
        assert float(found.score[i]) == pytest.approx(scores[key], abs=1e-3, rel=1e-5)


def test_greedy_is_exhaustive_where_layers_are_independent(model):
    for decoder in model.decoders:  # predictions that don't depend on what is above
        torch.nn.init.zeros_(decoder.write.weight)
    for level in (1, 2):
        model.log_bigram(level).copy_(
            model.log_bigram(level)[:1].expand_as(model.log_bigram(level))
        )
    prior = torch.tensor([0.5, 0.5]).log()
    scores = every_assignment(model, image(1), prior)
    best = max(scores, key=scores.get)
    every = SearchOptions(**{**vars(ONE_FRAME), "beam": (1,)})
    found = search(model, network, image(1), prior, every)
    assert len(found) == 1
    key = (int(found.template[0]), tuple(found.offset[0].tolist()), *found.components[0].tolist())
    assert scores[key] == pytest.approx(scores[best], abs=1e-4)


def test_offsets_below_the_top_can_only_help(model):
    prior = torch.tensor([0.5, 0.5]).log()
    options = SearchOptions(**{**vars(ONE_FRAME), "reach": (1, 0), "shares": (1.0, 1.0, 0.0)})
    still = search(
        model,
        network,
        image(),
        prior,
        SearchOptions(**{**vars(ONE_FRAME), "shares": (1.0, 1.0, 0.0)}),
    )
    moved = search(model, network, image(), prior, options)

    def down_to_level_1(found):
        prior = model.log_bigram(2)[found.components[:, 0], found.components[:, 1]]
        return (found.score - prior).max()

    assert down_to_level_1(moved) >= down_to_level_1(still) - 1e-4


def test_chunks_of_any_memory_give_the_same(model):
    prior = torch.tensor([0.5, 0.5]).log()
    whole = search(model, network, image(), prior, ONE_FRAME)
    tiny = SearchOptions(**{**vars(ONE_FRAME), "memory": 1})
    pieces = search(model, network, image(), prior, tiny)
    torch.testing.assert_close(whole.score, pieces.score, rtol=1e-5, atol=1e-3)


def test_an_excluded_category_is_never_found(model):
    found = search(model, network, image(), torch.tensor([-torch.inf, 0.0]), ONE_FRAME)
    assert set(model.templates.category[found.template].tolist()) == {1}


def test_place_moves_the_best_hypothesis(model):
    left = lambda centres: -1e4 * (centres[:, 1] > -0.4).float()  # noqa: E731
    found = search(model, network, image(), torch.zeros(2), ONE_FRAME, left)
    assert found.offset[0, 1] == -1


def test_places_are_apart_and_where_they_may_be(model):
    options = SearchOptions(**{**vars(ONE_FRAME), "fine": 5, "halves": True})
    frames = [Frame(zoom, 0.0, shift) for zoom in (0.9, 1.2) for shift in (0.0, 0.25)]
    even = torch.tensor([0.5, 0.5]).log()
    ask = lambda place: best_places(model, network, image(), even, options, place, frames)  # noqa: E731
    found = [centre for centre, _ in ask(None)]
    assert len(found) == 5
    for one, other in itertools.combinations(found, 2):
        assert math.dist(one, other) > 0.75 * 2 / 4
    left = [x for (_, x), _ in ask(lambda centres: -20 * centres[:, 1].clamp(min=0))]
    assert left
    assert max(left) < 0.15 < max(x for _, x in found)


def test_every_place_is_searched_and_the_best_score_comes_first(model):
    options = SearchOptions(
        **{**vars(ONE_FRAME), "fine": 3, "fine_beam": (4, 2), "fine_zooms": (1.0,)}
    )
    found = search(model, network, image(), torch.tensor([0.5, 0.5]).log(), options)
    assert len(found) == len(found.frame) == 6
    assert (found.score.diff() <= 0).all()
    rows = torch.tensor([4, 1])
    taken = found.take(rows)
    assert taken.frame == (found.frame[4], found.frame[1])
    assert torch.equal(taken.mask, found.mask[rows])


def test_rough_scores_are_below_the_exact_log_odds():
    torch.manual_seed(0)
    model = Activations(SHAPES, ("plane",), templates=5, components=3)
    model.templates.logit.normal_()
    model.templates.mean.uniform_(0, 2)
    found = torch.rand(2, 6, 4, 4) * 2
    options = SearchOptions(top_reach=0)
    rough = rough_scores(model, found, torch.arange(5), options)
    for frame in range(2):
        exact = model.top(torch.arange(5), found[frame]).log_odds.sum((1, 2, 3))
        assert (rough[frame, :, 0] <= exact + 1e-3).all()


def test_frames_there_and_back():
    picture = torch.zeros(1, 1, 32, 32)
    picture[:, :, 10:20, 8:18] = 1
    frame = Frame(1.25, 0.1, -0.2)
    there = frame.look(picture)
    assert (frame.back(there) - picture).abs().mean() < 0.03
    ys, xs = torch.where(there[0, 0] > 0.5)
    y, x = frame.place((ys.float().mean() * 2 + 1) / 32 - 1, (xs.float().mean() * 2 + 1) / 32 - 1)
    assert float(y) == pytest.approx(30 / 32 - 1, abs=0.05)
    assert float(x) == pytest.approx(26 / 32 - 1, abs=0.05)


@pytest.mark.parametrize(("down", "right"), window(2))
def test_shift_moves_whole_cells(down, right):
    cells = torch.arange(25.0).view(5, 5)
    moved = shift(cells, down, right, -1.0)
    for y, x in itertools.product(range(5), range(5)):
        inside = 0 <= y - down < 5 and 0 <= x - right < 5
        assert moved[y, x] == (cells[y - down, x - right] if inside else -1)
