"""Closed forms per element against brute force, for both models."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_backward.gated import log_odds, posterior
from fa_backward.thresholded import Thresholds, fit_thresholds, log_normal, map_elements

numbers = st.floats(-1, 4, allow_nan=False)
deviations = st.floats(0.2, 2)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, deviations, deviations, deviations, numbers, st.floats(0, 1))
def test_published_map_is_the_best_of_a_grid(found, mean, s0, s1, s2, beta, threshold):
    t = lambda x: torch.tensor(x, dtype=torch.float64)  # noqa: E731
    site = Thresholds(t(threshold), t(s1), t(beta), t(s2))
    value, score = map_elements(t(found), t(mean), t(s0), site)

    def joint(f):
        shown = log_normal(t(found), f, site.noise)
        silent = log_normal(t(found), site.beta, site.background)
        return log_normal(f, t(mean), t(s0)) + torch.where(f >= threshold, shown, silent)

    low, high = -12.0, 12.0
    for _ in range(6):  # a grid around the best point of the coarser grid
        grid = torch.linspace(low, high, 4001, dtype=torch.float64)
        grid = torch.cat([grid, t([threshold, threshold - 1e-12])])
        best = grid[joint(grid).argmax()].item()
        width = (high - low) / 400
        low, high = best - width, best + width
    assert score.item() == pytest.approx(joint(t([best])).item(), abs=1e-6)
    assert joint(value[None]).item() <= score.item() + 1e-9
    assert joint(value[None] - 1e-12).item() == pytest.approx(score.item(), abs=1e-6) or joint(
        value[None]
    ).item() == pytest.approx(score.item(), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-4, 4), numbers, deviations, numbers, deviations, st.floats(-5, 1), st.floats(0, 1)
)
def test_gated_posterior_is_the_integral(logit, mean, spread, found, noise, log_bg, visible):
    t = lambda x: torch.tensor(x, dtype=torch.float64).view(1, 1, 1)  # noqa: E731
    two = torch.zeros(2, 1, 1, dtype=torch.float64)  # two channels: each has its own gate
    result = posterior(
        t(logit) + two, t(mean) + two, t(spread), t(found) + two, t(noise), t(log_bg), visible
    )
    visible = min(max(visible, 1e-6), 1 - 1e-6)
    on = 1 / (1 + math.exp(-logit))
    a = torch.linspace(mean - 14 * spread, mean + 14 * spread, 200_001, dtype=torch.float64)
    step = a[1] - a[0]
    prior = log_normal(a, t(mean).flatten(), t(spread).flatten()).exp()
    seen = log_normal(t(found).flatten(), a, t(noise).flatten()).exp()
    background = math.exp(log_bg)
    given_on = prior * (visible * seen + (1 - visible) * background)
    evidence = on * (given_on.sum() * step).item() + (1 - on) * background
    expected = on * ((given_on * a).sum() * step).item() / evidence
    assert result.log_odds[0].item() == pytest.approx(math.log(evidence / background), abs=1e-6)
    assert result.value[0].item() == pytest.approx(expected, abs=1e-6)
    share = on * (given_on.sum() * step).item() / evidence
    assert result.on[0].item() == pytest.approx(share, abs=1e-6)


def test_one_gate_sums_the_evidence_of_all_channels():
    torch.manual_seed(0)
    args = [torch.rand(2, 1, 3, 4, 4, dtype=torch.float64) for _ in range(3)]
    mean, found, log_background = args
    one = torch.tensor(1.0, dtype=torch.float64)
    shared = posterior(torch.zeros(2, 1, 1, 4, 4), mean, one, found, one, log_background, 1.0)
    ratio = log_normal(found, mean, (2 * one).sqrt()) - log_background
    expected = torch.log((1 + ratio.sum(-3, keepdim=True).exp()) / 2)
    torch.testing.assert_close(shared.log_odds, expected, rtol=1e-4, atol=1e-4)


def test_unseen_scene_changes_nothing():
    logit, mean, found = torch.zeros(3, 2, 2), torch.ones(3, 2, 2), torch.rand(3, 2, 2)
    one = torch.tensor(1.0)
    result = posterior(logit, mean, one, found, one, torch.zeros(3, 2, 2), 0.0)
    torch.testing.assert_close(result.value, torch.full_like(mean, 0.5), atol=1e-5, rtol=0)
    assert result.log_odds.abs().max() < 1e-5


def test_thresholds_are_recovered_from_data_of_a_known_model():
    generator = torch.Generator().manual_seed(1)
    alone = torch.rand(400, 3, 8, 8, generator=generator) * 2
    noise = torch.tensor([0.1, 0.2, 0.4])
    shown = alone + noise[:, None, None] * torch.randn(alone.shape, generator=generator)
    silent = 0.3 + 0.5 * torch.randn(alone.shape, generator=generator)
    scene = torch.where(alone >= 0.7, shown, silent)
    site, likelihood = fit_thresholds(scene, alone, torch.arange(0.1, 1.5, 0.1))
    assert site.threshold.item() == pytest.approx(0.7, abs=1e-6)
    torch.testing.assert_close(site.noise.flatten(), noise, rtol=0.03, atol=0)
    assert site.beta.item() == pytest.approx(0.3, abs=0.01)
    assert site.background.item() == pytest.approx(0.5, abs=0.01)
    assert likelihood.argmax() == 6


@pytest.mark.parametrize(("gates", "channels"), [(1, 3), (3, 3), (8, 8), (6, 6)])
def test_log_odds_alone_are_those_of_the_posterior(gates, channels):
    generator = torch.Generator().manual_seed(0)
    some = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    logit, mean, spread = (
        4 * some(5, gates, 6, 6) - 2,
        3 * some(5, channels, 6, 6),
        0.3 + some(channels, 1, 1),
    )
    found, noise, background = (
        3 * some(5, channels, 6, 6),
        0.3 + some(channels, 1, 1),
        -4 * some(5, channels, 6, 6),
    )
    each = posterior(logit, mean, spread, found, noise, background, 0.8).log_odds
    gate, variance = 0.8 * torch.sigmoid(logit), spread**2 + noise**2
    total = log_odds(gate, mean, variance, found, background)
    torch.testing.assert_close(total.float(), each.sum((1, 2, 3)), rtol=1e-4, atol=1e-4)
