"""The autonomous variant: where looking again changes nothing, and whether the solver got there."""

import pytest
import torch

import fa_dfm
from fa_dfm.errors import FeedbackAdapterError
from fa_dfm.fixed_point import fixed_point
from fa_dfm.nets import SmallView


def leaky(strength):
    torch.manual_seed(3)
    net = fa_dfm.convert(
        SmallView(labels=3, channels=2, width=8, depth=4),
        hidden=4,
        update="leaky",
        tau=2.0,
        image_size=(24, 24),
    ).double()
    with torch.no_grad():
        net.feedback.maps.weight.normal_(0, strength)
    return net.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", ["broyden", "fixed_point_iter"])
def test_the_fixed_point_is_where_many_steps_end(images, known, solver):
    pytest.importorskip("torchdeq")
    net = leaky(0.05)
    found = fixed_point(net, images, known, tolerance=1e-5, most=200, solver=solver)
    with torch.no_grad():
        many = net.unroll(images, known, steps=300)
    assert bool(found.converged.all())
    assert float(found.residuals.max()) < 1e-5
    torch.testing.assert_close(found.state.logits, many.logits[-1], rtol=0, atol=1e-3)
    assert int(found.evaluations.max()) < 200


@pytest.mark.filterwarnings("ignore")
def test_a_solver_that_stopped_short_says_so(images):
    pytest.importorskip("torchdeq")
    found = fixed_point(leaky(0.3), images, tolerance=1e-9, most=3)
    assert not bool(found.converged.any())
    assert float(found.residuals.min()) > 1e-9


def test_what_has_no_fixed_point_is_named(images, trained):
    net = fa_dfm.convert(SmallView(channels=2), update="published", kind="multilabel")
    with pytest.raises(FeedbackAdapterError, match="given Published"):
        fixed_point(net, images)
    with pytest.raises(FeedbackAdapterError, match="tolerance=0"):
        fixed_point(trained, images, tolerance=0)
