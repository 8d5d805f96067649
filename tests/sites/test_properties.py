"""Random small networks, pivots, evidence and batches: what must hold of any of them."""

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.errors import SiteError
from feedback_adapter.sites import INPUT, Inputs, Tail, frozen
from feedback_adapter.testing import differences, snapshot

LABELS = list("abcd")
OPERATIONS = (
    "layer", "again", "relu_", "add_", "branch", "join", "cat", "block", "view", "split",
)  # fmt: skip


class Split(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"left": x.clone(), "right": (x * 0.5,)}


class Random(nn.Module):
    """Runs a list of operations on a row of tensors of one width."""

    def __init__(self, operations: list[tuple[str, int]], seed: int, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.operations = operations
        self.stem = nn.Linear(5, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in operations)
        self.wide = nn.Linear(2 * width, width)
        self.act = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), self.layers[0])
        self.split = Split()
        self.head = nn.Linear(width, len(LABELS))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        stack = [x]
        for layer, (operation, number) in zip(self.layers, self.operations, strict=True):
            other = stack[number % len(stack)]
            if operation == "layer":
                x = layer(x)
            elif operation == "again":
                x = self.layers[number % len(self.layers)](x).tanh()
            elif operation == "relu_":
                x = self.act(x * 1.0 if number % 2 else layer(x))
            elif operation == "add_":
                x = layer(x)
                x += 0.1 * number
                x.mul_(other.sigmoid() if other is not x else 0.5)
            elif operation == "branch":
                x = layer(x) + self.block(other)
            elif operation == "join":
                x = x + other
            elif operation == "cat":
                x = self.wide(torch.cat([x, other], 1))
            elif operation == "block":
                x = self.block(x) - x
            elif operation == "view":
                x = layer(x.view(x.shape[0], 2, -1).flip(1).reshape(x.shape))
            else:
                parts = self.split(x)
                x = parts["left"] + layer(parts["right"][0])
            stack.append(x)
        return self.head(x)


networks = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5)), min_size=1, max_size=6
)
quick = settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@quick
@given(networks, st.integers(0, 1000), st.integers(0, 100), st.integers(1, 4))
def test_a_replay_is_exact_and_its_gradient_right(conformance, operations, seed, place, batch):
    model = Random(operations, seed).double()
    images = torch.randn(batch, 5, dtype=torch.float64)
    adapter = fa.wrap(model, labels=LABELS)
    sites = adapter.sites(images)
    site = sites[place % len(sites)]
    before = snapshot(model)
    with torch.no_grad():
        plain = model(images.clone())
    with frozen(model):
        tail = Tail.record(model, Inputs.of(images), [site])
        leaf = tail.activations[0].detach().clone().requires_grad_()
        with torch.enable_grad():
            value = tail.run([lambda _: leaf])
            assert torch.equal(value, plain)
            moved = leaf + 0.1 * torch.randn_like(leaf)
            expected = _by_hook(model, images, site, moved.detach())
            assert torch.allclose(tail.run([lambda _: moved]), expected, rtol=1e-12, atol=1e-12)
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        direction, step = torch.randn_like(leaf), 1e-6
        ends = [
            _by_hook(model, images, site, leaf.detach() + sign * step * direction).sum()
            for sign in (1, -1)
        ]
    slope = float((ends[0] - ends[1]) / (2 * step))
    given_slope = 0.0 if gradient is None else float((gradient * direction).sum())
    kinks = 1e-3 * (1 + abs(slope))  # a ReLU that switches within the step
    assert abs(slope - given_slope) < kinks or site.name == INPUT
    after = snapshot(model)
    assert not differences(before, after)


def _by_hook(model: nn.Module, images: Tensor, site: fa.Site, activation: Tensor) -> Tensor:
    """The model's output with a hook that puts an activation in, the slow and sure way."""
    if site.module == INPUT:
        with torch.no_grad():
            return model(activation.clone())
    calls = -1

    def hook(module: nn.Module, inputs: Any, value: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != site.call:
            return value
        if site.selector == "left":
            return {**value, "left": activation.clone()}
        if site.selector == "right.0":
            return {**value, "right": (activation.clone(),)}
        return activation.clone()

    handle = model.get_submodule(site.module).register_forward_hook(hook)
    try:
        with torch.no_grad():
            return model(images.clone())
    finally:
        handle.remove()


@quick
@given(
    networks, st.integers(0, 1000), st.lists(st.integers(0, 100), min_size=1, max_size=3),
    st.lists(st.dictionaries(st.sampled_from(LABELS), st.sampled_from([0, 1, 0.3])), min_size=2,
             max_size=5),
    st.sampled_from(["residual", "layerwise"]),
)  # fmt: skip
def test_an_image_does_not_depend_on_its_batch_mates(
    conformance, operations, seed, places, evidence, strategy
):
    model = Random(operations, seed).double()
    images = torch.randn(len(evidence), 5, dtype=torch.float64)
    adapter = fa.wrap(model, labels=LABELS)
    sites = adapter.sites(images)
    pivots = list({sites[place % len(sites)].name: None for place in places})
    before = snapshot(model)
    arguments = {"strategy": strategy, "pivots": pivots, "steps": 4, "step_size": 0.05}
    try:
        together = adapter.refine(images, fa.Labels(evidence), **arguments)
    except SiteError as error:
        assert "No known output depends" in str(error)  # noqa: PT017
        return
    assert torch.isfinite(together.after).all()
    assert (together.losses.amin(0) <= together.losses[0]).all()
    nothing = torch.tensor([not row for row in evidence])
    assert torch.equal(together.after[nothing], together.before[nothing])
    for index, row in enumerate(evidence):
        alone = adapter.refine(images[index : index + 1], fa.Labels([row]), **arguments)
        assert torch.allclose(alone.after[0], together.after[index], atol=1e-5)
        assert alone.steps[0] == together.steps[index]
    after = snapshot(model)
    assert not differences(before, after)
