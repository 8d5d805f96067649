"""The objective and the solvers, by their formulas."""

import math

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import OptionsError

STRATEGIES = ["residual", "layerwise"]


# ---- the formulas, on a linear model ----


class Linear(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.pivot = nn.Identity()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return self.pivot(x) @ self.weight.T


@pytest.fixture
def linear() -> fa.Adapter:
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.4, -1.0]], dtype=torch.float64)
    return fa.wrap(Linear(weight), labels=["known", "other"])


@pytest.mark.parametrize("unit", ["absolute", "rms"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_proximal_optimum_in_closed_form(linear, strategy, unit):
    """The minimum over c of softplus(-(z + s w.c)) + mu/2 |c|^2 is c = t s w, where
    mu t = sigmoid(-(z + t s² |w|²)); s is the unit, w the row of the known output."""
    x = torch.tensor([[0.5, 1.0, -1.0], [2.0, 0.1, 0.3]], dtype=torch.float64)
    w, mu = linear.model.weight.detach()[0], 0.8
    scale = x.square().mean(1).sqrt() if unit == "rms" else torch.ones(2, dtype=torch.float64)
    z, curve = x @ w, scale**2 * w.square().sum()
    low, high = torch.zeros(2).double(), torch.full((2,), 10.0).double()
    for _ in range(100):  # bisection
        t = (low + high) / 2
        above = mu * t > torch.sigmoid(-(z + t * curve))
        low, high = torch.where(above, low, t), torch.where(above, t, high)
    result = linear.refine(
        x, fa.Labels({"known": 1}), strategy=strategy, pivots="pivot", unit=unit, proximal=mu,
        solver=fa.SGD(momentum=0), step_size=0.1, steps=800, patience=None, keep="last",
    )  # fmt: skip
    change = (t * scale**2)[:, None] * w  # of the activation
    expected = (x + change) @ linear.model.weight.detach().T
    torch.testing.assert_close(result.refined, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("unit", ["absolute", "rms"])
def test_one_step_is_the_gradient(linear, unit):
    x = torch.tensor([[0.5, 1.0, -1.0], [2.0, 0.1, 0.3]], dtype=torch.float64)
    weight = linear.model.weight.detach()
    result = linear.refine(
        x, fa.Labels({"known": [1, 0], "other": [0.25, None]}), pivots="pivot", unit=unit,
        solver=fa.SGD(momentum=0), step_size=0.2, steps=1, keep="last",
    )  # fmt: skip
    p = (x @ weight.T).sigmoid()
    target = torch.tensor([[1, 0.25], [0, 0]], dtype=torch.float64)
    known = torch.tensor([[1, 1], [1, 0]], dtype=torch.float64)
    scale = x.square().mean(1, keepdim=True) if unit == "rms" else 1.0
    moved = x - 0.2 * scale * ((p - target) * known) @ weight
    torch.testing.assert_close(result.refined, moved @ weight.T, atol=1e-12, rtol=0)


def test_decay_shrinks_the_activation_whatever_is_known(linear):
    x = torch.tensor([[0.5, 1.0, -1.0]], dtype=torch.float64)
    options = fa.LayerwiseOptions(
        steps=3, step_size=0.1, solver=fa.SGD(momentum=0), unit="absolute", decay=0.5,
        keep="last", patience=None,
    )  # fmt: skip
    result = linear.refine(x, fa.Labels({}), strategy="layerwise", pivots="pivot", options=options)
    torch.testing.assert_close(result.refined, result.before * 0.95**3)


def test_mean_reduction_shares_the_gradient(linear):
    x = torch.randn(4, 3, dtype=torch.float64)
    told = fa.Labels({"known": 1, "other": [0, None, 1, None]})  # six items
    options = {
        "pivots": "pivot", "unit": "absolute", "solver": fa.SGD(momentum=0), "steps": 1,
        "keep": "last",
    }  # fmt: skip
    mean = linear.refine(x, told, reduction="mean", step_size=0.6, **options)
    total = linear.refine(x, told, reduction="sum", step_size=0.1, **options)
    torch.testing.assert_close(mean.refined, total.refined)


# ---- solvers ----


def quadratic(batch: int, size: int):
    """min 1/2 x'Ax - b'x for each image, with curvatures 1 to 10."""
    turn = torch.linalg.qr(torch.randn(batch, size, size, dtype=torch.float64))[0]
    matrix = turn @ torch.diag(torch.linspace(1, 10, size).double()) @ turn.mT
    return matrix, torch.randn(batch, size, dtype=torch.float64)


def walk(solver: fa.Solver, matrix, b, steps: int, step_size: float):
    x, state = torch.zeros_like(b), {}
    for _ in range(steps):
        gradient = (matrix @ x[..., None])[..., 0] - b
        x = x + solver.step(state, gradient, step_size)
    return x


@pytest.mark.parametrize(
    ("solver", "optimiser"),
    [
        (fa.SGD(), lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9)),
        (fa.SGD(momentum=0), lambda p: torch.optim.SGD(p, lr=0.03)),
        (fa.Adam(), lambda p: torch.optim.Adam(p, lr=0.03)),
        (
            fa.Adam(betas=(0.5, 0.7), eps=1e-3),
            lambda p: torch.optim.Adam(p, lr=0.03, betas=(0.5, 0.7), eps=1e-3),
        ),
    ],
)
def test_solvers_are_pytorchs(solver, optimiser):
    matrix, b = quadratic(3, 6)
    x = torch.zeros_like(b, requires_grad=True)
    theirs = optimiser([x])
    for _ in range(25):
        theirs.zero_grad()
        (0.5 * torch.einsum("bi,bij,bj->b", x, matrix, x) - (b * x).sum(1)).sum().backward()
        theirs.step()
    ours = walk(solver, matrix, b, 25, 0.03)
    torch.testing.assert_close(ours, x.detach(), atol=1e-12, rtol=0)


def test_lbfgs_is_pytorchs_from_the_second_step_on():
    """PyTorch's first step is as long as the 1-norm says; with that length they agree."""
    matrix, b = quadratic(1, 6)
    length = float(b.norm()) * min(1.0, 1 / float(b.abs().sum()))

    class First(fa.LBFGS):
        def step(self, state, gradient, step_size):
            return super().step(state, gradient, 1.0 if state else length)

    x = torch.zeros_like(b, requires_grad=True)
    theirs = torch.optim.LBFGS([x], lr=1, max_iter=6, history_size=5, tolerance_grad=0)

    def closure():
        theirs.zero_grad()
        loss = (0.5 * torch.einsum("bi,bij,bj->b", x, matrix, x) - (b * x).sum(1)).sum()
        loss.backward()
        return loss

    theirs.step(closure)
    torch.testing.assert_close(walk(First(), matrix, b, 6, 1.0), x.detach(), atol=1e-9, rtol=0)


def test_lbfgs_beats_gradient_descent_and_is_per_image():
    matrix, b = quadratic(5, 8)
    optimum = torch.linalg.solve(matrix, b)
    quasi = walk(fa.LBFGS(), matrix, b, 30, 1.0)
    plain = walk(fa.SGD(momentum=0), matrix, b, 30, 0.1)
    assert (quasi - optimum).norm() < 1e-3 * (plain - optimum).norm()
    alone = walk(fa.LBFGS(), matrix[3:4], b[3:4], 30, 1.0)
    torch.testing.assert_close(alone[0], quasi[3], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fa.SGD(momentum=1), r"momentum=1 .*\[0, 1\)"),
        (lambda: fa.Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: fa.Adam(eps=0), "eps=0 .*above 0"),
        (lambda: fa.LBFGS(history=0), "history=0 .*from 1 on"),
        (lambda: fa.ResidualOptions(steps=-1), r"steps=-1 .*a whole number from 0 on"),
        (lambda: fa.ResidualOptions(step_size=0), "step_size=0 .*above 0"),
        (lambda: fa.ResidualOptions(step_size=math.nan), "step_size=nan"),
        (lambda: fa.ResidualOptions(step_size=math.inf), "step_size=inf"),
        (lambda: fa.ResidualOptions(steps=2.5), "steps=2.5 .*a whole number"),
        (lambda: fa.ResidualOptions(tolerance="low"), "tolerance='low'"),
        (lambda: fa.ResidualOptions(solver="adan"), "no solver 'adan'. Did you mean 'adam'"),
        (lambda: fa.ResidualOptions(solver=torch.optim.Adam), r"solver=.*a Solver.*Adam\(\)"),
        (lambda: fa.ResidualOptions(unit="mm"), "unit='mm' .*'rms' or 'absolute'"),
        (lambda: fa.ResidualOptions(proximal=-1), "proximal=-1"),
        (lambda: fa.ResidualOptions(patience=0), r"patience=0 .*from 1 on, .*or None"),
        (lambda: fa.ResidualOptions(keep="first"), "keep='first'"),
        (lambda: fa.LayerwiseOptions(decay=-1), "decay=-1"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(OptionsError, match=message):
        make()
