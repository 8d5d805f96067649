"""The loop of steps: it costs what is taken, not what is allowed."""

import time
import tracemalloc

import pytest
import torch

import feedback_adapter as fa
from feedback_adapter.testing import tiny_adapter, tiny_images

TOLD = fa.Labels([{"cat": 1}, {"dog": 0}])


@pytest.mark.parametrize("strategy", ["residual", "layerwise"])
@pytest.mark.parametrize("trace", [False, True])
def test_steps_that_arent_taken_cost_nothing(strategy, trace):
    adapter, images = tiny_adapter(), tiny_images(2)
    told = {"strategy": strategy, "tolerance": 1.0, "trace": trace}
    few = adapter.refine(images, TOLD, steps=10, **told)
    tracemalloc.start()
    began = time.perf_counter()
    many = adapter.refine(images, TOLD, steps=300_000, **told)
    seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2.0  # each step went through Python before: over 10 s
    assert peak < 5e6
    assert many.losses.shape == (300_001, 2)
    assert torch.equal(many.losses[:11], few.losses)
    assert torch.equal(many.losses[10:], few.losses[10:].expand(299_991, 2))
    assert torch.equal(many.after, few.after)
    assert torch.equal(many.steps, few.steps)
    assert torch.equal(many.kept, few.kept)
    if trace:
        assert many.trace["output"].shape == (300_001, 2, 4)
        assert torch.equal(many.trace["output"][:11], few.trace["output"])
    else:
        assert many.trace is None


def test_each_of_two_pivots_has_rows_of_its_own():
    adapter, images = tiny_adapter(), tiny_images(2)
    names = [site.name for site in adapter.sites(images)][1:3]
    told = {"strategy": "layerwise", "pivots": names, "steps": 7, "tolerance": 1.0, "trace": True}
    result = adapter.refine(images, TOLD, **told)
    assert result.losses.shape == (15, 2)
    assert result.trace["output"].shape == (15, 2, 4)
    assert torch.equal(result.losses[2:8], result.losses[2].expand(6, 2))  # the first pivot's rest
    for row in range(2):
        alone = adapter.refine(images[[row]], TOLD.take(torch.tensor([row])), **told)
        torch.testing.assert_close(alone.losses[:, 0], result.losses[:, row])
