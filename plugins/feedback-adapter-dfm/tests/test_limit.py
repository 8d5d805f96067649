"""The best that can be done: triangles drawn from their posterior."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

limit = pytest.importorskip("limit")
shapes = pytest.importorskip("shapes")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_triangles_by_numbers_are_those_of_the_task():
    numbers = limit.prior((1, 500), generator(), None)
    areas = limit.Triangles.of(numbers, 48, fine=3).cover.flatten(2).sum(2)[0]
    drawn = shapes.triangles(500, 48, generator(1)).flatten(1).sum(1)
    areas = areas[areas >= 12]
    assert areas.mean() == pytest.approx(float(drawn.mean()), rel=0.08)
    assert areas.std() == pytest.approx(float(drawn.std()), rel=0.12)


def test_a_clicked_triangle_contains_the_click():
    click = torch.tensor([[0.5, 0.25]])
    numbers = limit.prior((1, 200), generator(), click)
    cover = limit.Triangles.of(numbers, 48, fine=3).cover[0]
    near = cover[:, 10:14, 22:26].flatten(1).amax(1)
    assert near.mean() > 0.97  # a corner may be thinner than a pixel


def test_nearly_clean_images_leave_no_doubt():
    white = shapes.triangles(3, 24, generator(5))[:, 0]
    images = white + 0.3 * torch.randn(white.shape, generator=generator(6))
    samples = limit.Posterior(images, 0.3, None).sample(48, generator(7))
    mask, hoped = limit.best_mask(samples)
    assert limit.iou(mask, white).mean() > 88
    assert hoped.mean() == pytest.approx(float(limit.iou(mask, white).mean()), abs=8)


def test_the_best_mask_is_the_samples_own_where_they_agree():
    samples = shapes.triangles(1, 24, generator()).expand(1, 4, 24, 24)
    mask, hoped = limit.best_mask(samples)
    assert torch.equal(mask, samples[:, 0])
    assert hoped.tolist() == [100.0]
