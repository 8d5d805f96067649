"""Data, evidence, losses and the training loop of the recipes."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import fa_dfm
from fa_dfm.nets import SmallView

fit = pytest.importorskip("fit")
losses = pytest.importorskip("losses")
sampling = pytest.importorskip("sampling")
shapes = pytest.importorskip("shapes")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_triangles_are_as_large_as_published():
    side = 64
    areas = shapes.triangles(400, side, generator()).flatten(1).sum(1)
    whole = 3 * math.sqrt(3) / 4 * side**2  # of an equilateral triangle, times its radius squared
    low, high = 0.1**2 * whole, 0.25**2 * whole
    assert (areas >= 12).all()
    assert areas.max() < 1.25 * high
    inside = areas[areas > low]  # the others are cut off by the edge
    assert 0.4 * (low + high) / 2 < inside.mean() < 1.1 * (low + high) / 2
    assert torch.equal(
        shapes.triangles(5, side, generator(3)), shapes.triangles(5, side, generator(3))
    )


def test_two_triangles_do_not_touch():
    white, meant = shapes.two_triangles(20, 48, generator())
    other = white - meant
    assert set(white.unique().tolist()) == {0.0, 1.0}
    assert (other.flatten(1).sum(1) >= 12).all()
    assert (F.max_pool2d(meant, 5, 1, 2) * other).sum() == 0


def test_noise_is_scaled_to_zero_and_one_per_image():
    masks = shapes.triangles(4, 48, generator())
    images = shapes.noisy(masks, torch.tensor([0.0, 0.5, 1.0, 3.0]), generator())
    torch.testing.assert_close(images.amin((1, 2, 3)), torch.zeros(4))
    torch.testing.assert_close(images.amax((1, 2, 3)), torch.ones(4))
    assert torch.equal(images[0], masks[0])


def test_clicks_hit_what_they_should():
    where = torch.zeros(3, 12, 12, dtype=torch.bool)
    where[0, 2:8, 3:7], where[1, 5, 5] = True, True
    told = sampling.clicks(where, torch.tensor([2, 2, 2]), 2, generator())
    assert told.flatten(1).sum(1).tolist() == [2, 1, 0]
    assert not (told & ~where).any()


def test_class_clicks_choose_rare_classes_as_often():
    mask = torch.zeros(2000, 10, 10, dtype=torch.long)
    mask[:, 0, 0], mask[:, 9] = 1, 7  # label 1 is one pixel, and 7 is no label
    told = sampling.class_clicks(mask, 2, torch.ones(2000, dtype=torch.long), 1, generator())
    assert (told.flatten(1).sum(1) == 1).all()
    assert not told[:, 9].any()
    assert 0.45 < told[:, 0, 0].float().mean() < 0.55


def test_a_correcting_click_is_in_the_largest_mistake():
    mask = torch.zeros(1, 40, 40, dtype=torch.long)
    mask[0, 20:40], mask[0, 0, 0] = 1, 3
    predicted = torch.zeros_like(mask)
    told = sampling.error_click(predicted, mask, 2, reach=5)
    row, column = told[0].nonzero()[0].tolist()
    assert told.sum() == 1
    assert 24 <= row <= 35
    assert 4 <= column <= 35
    assert not sampling.error_click(mask.clamp(max=1), mask, 2).any()


def test_a_correcting_click_counts_mistakes_exactly():
    mask = torch.randint(3, (2, 21, 30), generator=generator(1))
    predicted = torch.randint(3, mask.shape, generator=generator(2))
    told = sampling.error_click(predicted, mask, 3, reach=4)
    for i in range(2):
        found = torch.zeros(mask.shape[1:])
        for row, column in (predicted[i] != mask[i]).nonzero().tolist():
            window = (slice(max(row - 4, 0), row + 5), slice(max(column - 4, 0), column + 5))
            same = (mask[i][window] == mask[i, row, column]) & (
                predicted[i][window] != mask[i][window]
            )
            found[row, column] = same.sum()
        assert found[told[i]] == found.max()


def test_scattered_pixels_are_as_many_as_asked():
    share = sampling.log_uniform(4000, 1e-3, 1e-1, generator())
    assert 1e-3 <= share.min() < share.max() <= 1e-1
    assert 0.45 < (share < 1e-2).float().mean() < 0.55
    told = sampling.scattered(torch.tensor([0.0, 0.1]), (200, 200), generator())
    assert told[0].sum() == 0
    assert abs(told[1].float().mean() - 0.1) < 0.01


def test_the_loss_is_cross_entropy_and_dice():
    logits = torch.tensor([[[[30.0, -30.0]]]])
    exact = torch.tensor([[[[1.0, 0.0]]]])
    assert losses.step_loss(logits, exact, "multilabel") < 1e-6
    wrong = losses.step_loss(logits, 1 - exact, "multilabel")
    torch.testing.assert_close(wrong, torch.tensor(30 + 0.3 * (1 - 1 / 3)))


def test_unlabelled_pixels_do_not_count():
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target[0, 0] = 3
    changed = logits.clone()
    changed[0, :, 0] = 50 * torch.randn(3, 4)
    torch.testing.assert_close(
        losses.step_loss(logits, target, "multiclass"),
        losses.step_loss(changed, target, "multiclass"),
    )


def test_the_learning_rate_goes_up_and_down():
    rates = [fit.one_cycle(x / 100) for x in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[10] == pytest.approx(1)
    assert rates[100] == pytest.approx(4e-6)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def train(steps, seed=0, state_file=None, truncate=True):
    torch.manual_seed(0)
    net = fa_dfm.convert(SmallView(width=4, depth=3), hidden=2, kind="multilabel", steps=3)
    masks = shapes.triangles(8, 24, generator())

    def draw(_net, generator):
        rows = torch.randint(8, (4,), generator=generator)
        images = shapes.noisy(masks[rows], torch.rand(4, generator=generator), generator)
        return fit.Batch(images, masks[rows])

    settings = fit.Settings(steps, looks=3, seed=seed, truncate=truncate)
    return net, fit.fit(net, draw, settings, state_file=state_file, every=6)


@pytest.mark.filterwarnings("ignore")
def test_feedback_weights_learn_faster_if_asked():
    def first_step(feedback_lr):
        torch.manual_seed(0)
        net = fa_dfm.convert(SmallView(width=4, depth=3), hidden=2, kind="multilabel", steps=3)
        before = [w.clone() for w in (net.feedback.maps.weight, net.model.head.weight)]
        images, masks = torch.randn(4, 1, 24, 24), torch.ones(4, 1, 24, 24)
        known = fa_dfm.Known(torch.ones(4, 1, 24, 24), masks)
        settings = fit.Settings(1, lr=1e-3, feedback_lr=feedback_lr, looks=1)
        fit.fit(net, lambda *_: fit.Batch(images, masks, known), settings)
        after = (net.feedback.maps.weight, net.model.head.weight)
        return [float((a - b).abs().max()) for a, b in zip(after, before, strict=True)]

    slow, fast = first_step(1.0), first_step(10.0)  # Adam's first step is the learning rate
    assert fast[0] == pytest.approx(10 * slow[0], rel=1e-3)
    assert fast[1] == pytest.approx(slow[1], rel=1e-3)
    assert slow == pytest.approx([1e-3 / 25] * 2, rel=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_training_learns_the_same_twice():
    first, report = train(40)
    second, _ = train(40)
    assert report["steps"] == 40
    assert report["loss"] < 0.6
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.feedback.maps.weight.abs().max() > 0
    assert not first.training


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole, _ = train(20)
    calls = []

    def cut(*args, **kwargs):
        calls.append(None)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return loss(*args, **kwargs)

    loss = fit.trajectory_loss
    with monkeypatch.context() as patch:
        patch.setattr(fit, "trajectory_loss", cut)
        with pytest.raises(KeyboardInterrupt):
            train(20, state_file=tmp_path / "state.safetensors")
    resumed, _ = train(20, state_file=tmp_path / "state.safetensors")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
