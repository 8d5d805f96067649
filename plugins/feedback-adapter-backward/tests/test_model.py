"""The front door on a tiny network, and the evidence `Place`."""

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from fa_backward import BackwardError, GenerativeModel, Place
from fa_backward.agreement import agreement
from fa_backward.fitting import pairs, paste, speaks_for
from fa_backward.network import Network, find_sites
from fa_backward.pieces import one_piece
from feedback_adapter.testing import check_evidence, tiny_outputs, untouched

SIDE = 16


def network():
    """Two convolutions whose features are the colours and where they are not."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 2),
    )  # fmt: skip
    return net.eval()


def shapes(n=60, seed=0):
    """Red bars and green squares of many lengths, in the middle: objects, masks, categories."""
    generator = torch.Generator().manual_seed(seed)
    objects, masks, names = torch.zeros(n, 3, SIDE, SIDE), torch.zeros(n, 1, SIDE, SIDE), []
    for i in range(n):
        long = int(torch.randint(4, 7, (1,), generator=generator))
        high = 2 if i % 2 else long
        masks[i, 0, 8 - high : 8 + high, 8 - long : 8 + long] = 1
        objects[i, 0 if i % 2 else 1] = masks[i, 0]
        names.append("bar" if i % 2 else "square")
    return objects, masks, names


def grey(noise):
    """Grey noise that is neither nothing nor an object's colour."""
    return (0.3 + 0.3 * noise).expand(*noise.shape[:-3], 3, SIDE, SIDE)


@pytest.fixture(scope="module")
def model():
    """Fitted in a few seconds; grey noise behind."""
    objects, masks, names = shapes()
    backgrounds = grey(torch.rand(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2)))
    fitted = GenerativeModel.fit(
        network(), objects, masks, names, backgrounds=backgrounds, templates=12, components=1,
        steps=400, batch=8,
    )  # fmt: skip
    return fitted.with_options(zooms=(1.0,), halves=False, fine=0, top_reach=1)


def scene(index, dx=0, seed=5):
    objects, masks, _ = shapes(seed=1)
    move = lambda x: torch.roll(x, dx, -1)  # noqa: E731
    back = grey(torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)))
    return move(objects[index]) + (1 - move(masks[index])) * back, move(masks[index])[0]


def iou(mask, true):
    mask, true = mask > 0.5, true > 0.5
    return ((mask & true).sum() / (mask | true).sum()).item()


@pytest.mark.parametrize(("index", "name"), [(0, "square"), (1, "bar"), (2, "square"), (3, "bar")])
def test_objects_are_found_with_their_masks(model, index, name):
    image, true = scene(index)
    (instance,) = model.backward(image[None])
    assert instance.category == name
    assert iou(instance.mask, true) > 0.7
    assert instance.log_odds.sum() > 0


def test_agreement_is_1_for_the_same_and_0_for_another_place():
    mask = torch.zeros(3, 8, 8)
    mask[0, :4, :4] = mask[1, 4:, 4:] = 1
    mask[2, :4, :] = 1
    coverage = torch.zeros(2, 2)
    coverage[0, 0] = 1
    found = agreement(mask, coverage.expand(3, 2, 2))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.5]))
    half = agreement(mask[:1] / 2, coverage[None])
    assert float(half) == pytest.approx(0.5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_hypotheses_are_ranked_by_the_networks_map_if_there_is_one(model, side):
    objects, _, _ = shapes(seed=1)
    image = torch.roll(objects[1], -4, -1) + torch.roll(objects[3], 4, -1)

    def coverage(images):
        found = torch.zeros(len(images), 2, 2, 2)
        found[..., 0 if side == "left" else 1] = 0.8
        return found

    options = model.with_options(beam=(30,), candidates=40).options
    guided = GenerativeModel(model.network, model.activations, options, coverage=coverage)
    (found,) = guided.backward(image[None])
    (free,) = guided.with_options(guided=False).backward(image[None])
    columns = torch.arange(SIDE) + 0.5
    middle = float((found.mask.sum(0) * columns).sum() / found.mask.sum())
    assert (middle < SIDE / 2) == (side == "left")
    assert free.agreement is None
    assert found.agreement > 0
    assert free.score >= found.score


def test_parse_ends_where_the_networks_map_shows_nothing(model):
    def coverage(images):
        return torch.nn.functional.adaptive_avg_pool2d((images > 0.9).float()[:, [1, 0]], 2)

    guided = GenerativeModel(model.network, model.activations, model.options, coverage=coverage)
    image, true = scene(0)
    (found,) = guided.parse(image, 3)
    assert found.category == "square"
    assert iou(found.mask, true) > 0.7


def test_an_image_alone_is_the_same_as_in_a_batch(model):
    images = torch.stack([scene(i)[0] for i in range(3)])
    together = model.backward(images)
    for image, instance in zip(images, together, strict=True):
        (alone,) = model.backward(image[None])
        assert alone.score == pytest.approx(instance.score, abs=1e-5)
        torch.testing.assert_close(alone.mask, instance.mask, atol=1e-5, rtol=0)


def test_samples_look_like_their_category(model):
    samples = model.sample(12, "bar")
    assert samples.shape == (12, 3, SIDE, SIDE)
    red = samples[:, 0].sum((1, 2)) > 4 * samples[:, 1].sum((1, 2))
    assert red.sum() >= 10
    torch.testing.assert_close(samples, model.sample(12, "bar"))
    assert not torch.equal(samples, model.sample(12, "bar", seed=1))


def test_the_bigrams_sum_to_1(model):
    for level in range(1, len(model.activations.names)):
        total = model.activations.log_bigram(level).exp().sum(1)
        torch.testing.assert_close(total, torch.ones_like(total))


def test_the_users_model_stays_as_it_is(model):
    with untouched(model.network.model):
        model.backward(scene(0)[0][None])


def test_clamping_a_category(model):
    image, _ = scene(0)
    assert model.backward(image[None], ["bar"])[0].category == "bar"
    with pytest.raises(BackwardError, match="bar"):
        model.backward(image[None], ["barn"])


def test_parse_takes_out_what_it_found(model):
    image, true = scene(1)
    first, *rest = model.parse(image, 2)
    assert iou(first.mask, true) > 0.7
    assert all(iou(instance.mask, true) < 0.3 for instance in rest)


def test_bad_arguments_are_named(model):
    objects, masks, names = shapes(8)
    with pytest.raises(BackwardError, match="8 objects can't make 500"):
        GenerativeModel.fit(network(), objects, masks, names, backgrounds=objects)
    with pytest.raises(BackwardError, match="needed"):
        model.backward(torch.zeros(1, 3, 8, 8))
    bad = torch.zeros(2, 3, SIDE, SIDE)
    bad[1, 0, 0, 0] = torch.nan
    with pytest.raises(BackwardError, match="Image 1"):
        model.backward(bad)


def test_only_plain_networks():
    class Block(nn.Module):
        def forward(self, x):
            return x + x

    with pytest.raises(BackwardError, match="'1' is a Block"):
        Network(nn.Sequential(nn.Conv2d(3, 4, 3), Block()), ["0"])


def test_sites_are_the_poolings_and_the_last_map():
    sites = find_sites(network(), torch.zeros(1, 3, SIDE, SIDE))
    assert sites == {"7": (8, 4, 4), "2": (6, 8, 8)}


def test_place_keeps_the_promises_of_evidence():
    check_evidence(Place("left"), tiny_outputs(3))
    check_evidence(Place(["left", None, (0.2, 0.2, 0.9, 0.9)]), tiny_outputs(3))


def test_place_words():
    assert Place("upper right").box(0) == (0.5, 0.0, 1.0, 0.5)
    assert Place(["left", None]).take(torch.tensor([1])).box(0) is None
    boxes = ((0.5, 0.5, 0.2, 0.9), (1, 2), torch.rand(2, 4), (0, 0, "right", 1))
    for bad in ("leftish", "left right", "", 5, True, {}, ["left", 5], *boxes):
        with pytest.raises(BackwardError, match="Place (got|doesn't know)"):
            Place(bad)
    with pytest.raises(BackwardError, match="2 places for 3"):
        Place(["left", "right"]).bind({}, 3)
    assert isinstance(Place("left") & fa.Labels({"a": 1}), fa.All)


def test_one_piece_is_the_one_at_the_place():
    mask = torch.zeros(32, 32)
    mask[4:12, 2:12] = mask[18:30, 18:30] = 1
    mask[4:12, 13:15] = 0.9  # one pixel away: the same piece
    left = one_piece(mask, torch.tensor([-0.5, -0.6])) * mask
    assert left[:15].sum() == mask[:15].sum()
    assert left[15:].sum() == 0
    right = one_piece(mask, torch.tensor([0.5, 0.6])) * mask
    assert right[15:].sum() == mask[15:].sum()
    assert right[:15].sum() == 0


def test_fit_reports_on_every_site(model):
    assert tuple(model.report) == model.activations.names
    for found in model.report.values():
        assert 0 <= found["share"] <= 1
    assert all(model.options.evidence)


def test_the_share_counts_objects_whose_log_odds_are_above_zero(model):
    objects, masks, _ = shapes(8, seed=1)
    own = model.activations
    batch = pairs(
        own,
        model.network,
        paste(objects, masks, grey(torch.rand(8, 1, SIDE, SIDE))),
        torch.arange(8),
    )
    found = speaks_for(own, batch)
    top = own.top(batch.template, batch.found[0]).log_odds.sum((1, 2, 3))
    assert found[own.names[0]] == float((top > 0).double().mean())
    logit, mean = own.predict(1, batch.alone[0])
    below = own.settle(1, logit, mean, batch.found[1][:, None]).log_odds.sum((2, 3, 4)).amax(1)
    assert found[own.names[1]] == float((below > 0).double().mean())


def test_sites_that_fail_are_left_out_if_asked():
    objects, masks, names = shapes(8)
    fitted = GenerativeModel.fit(
        network(), objects, masks, names, backgrounds=objects * 0 + 0.3, templates=4,
        components=1, steps=2, batch=2, leave_out=True,
    )  # fmt: skip
    for (name, found), used in zip(fitted.report.items(), fitted.options.evidence, strict=True):
        quiet = name == "image" or found["energy"] <= 0.2
        assert used == (quiet and found["share"] >= 0.95)
