"""Gauss-Newton: the exact solution where the tail is linear, and what every strategy promises."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError, OptionsError, SiteError
from feedback_adapter.networks.decoder import CaptionDecoder
from feedback_adapter.plugins import strategy as strategy_named
from feedback_adapter.refinement import CONVERGED
from feedback_adapter.strategies import NewtonOptions
from feedback_adapter.strategies.loop import STUCK
from feedback_adapter.testing import check_strategy, tiny_adapter, tiny_images, untouched

LABELS = list("abcd")


@pytest.fixture
def linear() -> fa.Adapter:
    """A linear tail, float64."""
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4)).double()
    nn.init.normal_(model[1].weight)
    return fa.wrap(model, labels=LABELS)


def solved(adapter, images, targets, known, prior_std):
    """The minimum over activations, by Newton's method in the dual, in a few lines of algebra.

    At the minimum the change is J^T v with v = (target - p) / mu, so that v solves
    mu v = target - sigmoid(z + J J^T v).
    """
    weight = adapter.model[1].weight.detach()
    after = []
    for image, target, mask in zip(images, targets, known, strict=True):
        jacobian = weight[mask]
        kernel = jacobian @ jacobian.T
        plain = adapter.model(image[None]).detach()[0]
        error = target[mask] - plain[mask].sigmoid()
        mu = error @ kernel @ error / (error @ error) / prior_std**2
        v = torch.zeros_like(error)
        for _ in range(100):
            p = (plain[mask] + kernel @ v).sigmoid()
            slope = mu * torch.eye(len(v)) + (p * (1 - p))[:, None] * kernel
            v = v - torch.linalg.solve(slope, mu * v - (target[mask] - p))
        after.append(plain + weight @ jacobian.T @ v)
    return torch.stack(after)


@pytest.mark.parametrize("prior_std", [0.5, 3.0])
@pytest.mark.parametrize("count", [1, 2])
def test_a_linear_tail_is_solved(linear, prior_std, count):
    """With one or two known labels the plane holds the minimum."""
    images = torch.randn(5, 6).double()
    targets = (torch.rand(5, 4) < 0.5).double()
    known = torch.zeros(5, 4, dtype=torch.bool)
    for row in known:
        row[torch.randperm(4)[:count]] = True
    result = linear.refine(
        images, fa.Labels.from_tensors(targets, known), strategy="newton", pivots="0",
        prior_std=prior_std, steps=6, trace=True,
    )  # fmt: skip
    expected = solved(linear, images, targets, known, prior_std)
    torch.testing.assert_close(result.trace["output"][-1], expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(result.refined, expected, atol=1e-6, rtol=0)


def test_many_known_labels_are_solved_in_more_steps(linear):
    images, targets = torch.randn(5, 6).double(), (torch.rand(5, 4) < 0.5).double()
    known = torch.ones(5, 4, dtype=torch.bool)
    expected = solved(linear, images, targets, known, 2.0)
    evidence = fa.Labels.from_tensors(targets, known)
    apart = [
        linear.refine(images, evidence, strategy="newton", pivots="0", prior_std=2.0, steps=steps)
        .refined.sub(expected)
        .abs()
        .max()
        for steps in (1, 5, 60)
    ]
    assert apart[0] > apart[1] > 1e3 * apart[2]


def test_the_objective_falls_and_its_best_is_kept(linear):
    result = tiny_adapter().refine(
        tiny_images(6), fa.Labels({"cat": 1, "dog": 0}), strategy="newton", pivots="again#0",
        steps=3, trace=True,
    )  # fmt: skip
    assert result.losses.shape == (4, 6)
    assert result.improved.all()
    rows = torch.arange(6)
    assert torch.equal(result.refined, result.trace["output"][result.kept, rows])
    specs = result.outputs_before.specs
    told = fa.Labels({"cat": 1, "dog": 0}).loss(fa.Outputs({"output": result.refined}, specs))
    torch.testing.assert_close(told, result.loss)


def test_a_longer_reach_goes_further(linear):
    images, told = torch.randn(4, 6).double(), fa.Labels({"a": 1})
    moves = [
        (
            result := linear.refine(
                images, told, strategy="newton", pivots="0", prior_std=prior_std
            )
        ).refined
        - result.before
        for prior_std in (0.1, 1.0, 10.0)
    ]
    sizes = [move[:, 0] for move in moves]
    assert (sizes[0] > 0).all()
    assert (sizes[1] > sizes[0]).all()
    assert (sizes[2] > sizes[1]).all()
    error = 1 - linear.predict(images).sigmoid()[:, 0]
    # a prior_std of s is a prior variance s^2 of the logit: to first order it moves by s^2 error
    torch.testing.assert_close(sizes[0], 0.1**2 * error, rtol=0.01, atol=0)


def test_the_reach_does_not_depend_on_the_activations_scale(linear):
    images, told = torch.randn(4, 6).double(), fa.Labels({"a": 1, "b": 0})
    results = []
    for factor in (1.0, 1000.0):
        with torch.no_grad():
            linear.model[0].weight *= factor
            linear.model[0].bias *= factor
            linear.model[1].weight /= factor
        results.append(linear.refine(images, told, strategy="newton", pivots="0").refined)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_it_keeps_the_promises_of_a_strategy(kind):
    spec = strategy_named("newton")
    adapter = tiny_adapter(kind)
    some = lambda batch: fa.Labels(  # noqa: E731
        [None if i % 3 == 2 else {"dog": 1.0} for i in range(batch)]
    )
    check_strategy(spec, adapter=adapter, evidence=some, pivots="again#1")
    check_strategy(
        spec, spec.options(steps=3), adapter=adapter, evidence=some, pivots=["stem", "again"]
    )


def test_no_image_looks_at_another():
    adapter, images = tiny_adapter(double=True), tiny_images(24).double()
    told = fa.Labels([{"cat": i % 2, "snow": i % 7 / 6} if i % 5 else None for i in range(24)])
    arguments = {"strategy": "newton", "pivots": ["stem", "again#1"], "steps": 3}
    batch = adapter.refine(images, told, **arguments)
    for image in range(24):
        alone = adapter.refine(
            images[image : image + 1], told.take(torch.tensor([image])), **arguments
        )
        torch.testing.assert_close(alone.refined[0], batch.refined[image], atol=1e-10, rtol=0)
        torch.testing.assert_close(alone.losses[:, 0], batch.losses[:, image], atol=1e-10, rtol=0)
    nothing = torch.arange(0, 24, 5)
    assert torch.equal(batch.refined[nothing], batch.before[nothing])
    assert {batch.status[image] for image in nothing.tolist()} == {CONVERGED}
    assert batch.steps[nothing].max() == 0


def test_a_loss_that_is_no_number_is_turned_back_from():
    adapter = tiny_adapter()
    told = fa.Labels({"cat": 1}).bind(adapter.outputs, 2)
    calls = []
    loss = told.loss
    told.loss = lambda outputs: (
        calls.append(1) or loss(outputs) * (1 if len(calls) < 3 else torch.nan)
    )
    with untouched(adapter.model):
        result = adapter.refine(tiny_images(2), told, strategy="newton", pivots="stem")
    assert torch.equal(result.refined, result.before)
    assert result.losses.isfinite().all()
    assert result.status == (STUCK, STUCK)
    told.loss = lambda outputs: loss(outputs) * torch.nan
    error = pytest.raises(EvidenceError, match="The evidence loss of image 0 is nan")
    with untouched(adapter.model), error:
        adapter.refine(tiny_images(2), told, strategy="newton", pivots="stem")


@pytest.mark.parametrize("seed", range(6))
def test_it_gains_on_a_small_transformer_as_residual_does(seed):
    torch.manual_seed(seed)
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=4, img_size=32, patch_size=8, embed_dim=16, depth=2,
        num_heads=2,
    )  # fmt: skip
    adapter = fa.wrap(model.eval(), labels=list("abcd"))
    result = adapter.refine(torch.rand(4, 3, 32, 32), fa.Labels({"a": 1}), strategy="newton")
    assert result.improved.all()


@pytest.mark.parametrize("seed", [12, 33, 58, 103])
def test_it_gains_where_the_tail_bends_before_the_probe(seed):
    """There the secant says up where the gradient says down, and no shorter step helped."""
    torch.manual_seed(seed)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, 2)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            features = self.first(self.first(self.stem(x).relu().mean((2, 3)))).relu()
            return self.head(self.second(features))

    images = torch.rand(3, 3, 32, 32)
    adapter = fa.wrap(Net().eval(), labels=["a", "b"])
    result = adapter.refine(images, fa.Labels({"a": 1}), strategy="newton", pivots="stem")
    assert result.improved.all()


@pytest.mark.parametrize(("steps", "most"), [(1, 1e-6), (2, 1e-5), (3, 2e-5), (8, 1e-5)])
@pytest.mark.parametrize("pivots", ["global_pool", "layer4", ["layer3", "layer4"]])
def test_an_image_alone_is_as_in_a_batch_in_float32(steps, most, pivots):
    torch.manual_seed(0)
    labels = ["a", "b", "c", "d"]
    adapter = fa.wrap(timm.create_model("resnet18", num_classes=4).eval(), labels=labels)
    images, told = torch.rand(8, 3, 64, 64), fa.Labels({"a": 1, "c": 0})
    arguments = {"strategy": "newton", "pivots": pivots, "steps": steps}
    batch = adapter.refine(images, told, **arguments)
    for i in range(8):
        alone = adapter.refine(images[i : i + 1], told, **arguments)
        torch.testing.assert_close(alone.refined[0], batch.refined[i], atol=most, rtol=0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.05, 200), st.sampled_from([1, 2, 5]), st.booleans())
def test_it_never_ends_above_where_it_began(seed, prior_std, steps, two):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sigmoid()]
    net = nn.Sequential(*layers, nn.Linear(8, 4))
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(torch.empty(()).uniform_(0.1, 20))
    adapter = fa.wrap(net, labels=list("abcd"))
    values = [{k: float(torch.rand(()) > 0.5) for k in "abc"[: 1 + i % 3]} for i in range(5)]
    result = adapter.refine(
        torch.randn(5, 3, 2, 2), fa.Labels(values), strategy="newton", prior_std=prior_std,
        pivots=["1", "3"] if two else ["1"], steps=steps,
    )  # fmt: skip
    assert (result.loss <= result.losses[0]).all()


def test_bfloat16():
    model = tiny_adapter().model.bfloat16()
    adapter = fa.wrap(model, labels=["cat", "dog", "snow", "ball"])
    result = adapter.refine(
        tiny_images(3).bfloat16(), fa.Labels({"cat": 1}), strategy="newton", pivots="stem"
    )
    assert result.refined.dtype == torch.bfloat16
    assert result.improved.all()


def test_a_pivot_that_nothing_known_depends_on_is_a_named_error():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x):
            return self.left(x), self.right(x)

    outputs = {name: fa.Output(tuple(LABELS), select=str(i)) for i, name in enumerate("lr")}
    adapter = fa.wrap(Two(), outputs=outputs)
    with pytest.raises(SiteError, match="No known output depends on right"):
        adapter.refine(
            torch.randn(2, 6), fa.Labels({"a": 1}, output="l"), strategy="newton", pivots="right"
        )


@pytest.mark.parametrize(
    "option", [{"steps": -1}, {"steps": 1.5}, {"prior_std": 0}, {"prior_std": torch.inf}]
)
def test_options_out_of_range(option):
    with pytest.raises(OptionsError, match=f"{next(iter(option))}=.* is out of range"):
        NewtonOptions(**option)


def test_no_steps():
    result = tiny_adapter().refine(
        tiny_images(2), fa.Labels({"cat": 1}), strategy="newton", steps=0
    )
    assert result.losses.shape == (1, 2)
    assert torch.equal(result.refined, result.before)


def test_a_class_of_classes_whose_loss_is_not_convex():
    hierarchy = {"animal": ("cat", "dog"), "thing": ("snow", "ball")}
    adapter = tiny_adapter("multiclass")
    output = fa.Output(("cat", "dog", "snow", "ball"), "multiclass", hierarchy=hierarchy)
    adapter = fa.Adapter(adapter.model, {"output": output})
    images, animals = tiny_images(6), fa.Coarse("animal")
    result = adapter.refine(images, animals, strategy="newton", pivots="again#0", steps=3)
    assert result.improved.all()
    assert (result.refined.softmax(1)[:, :2].sum(1) > result.before.softmax(1)[:, :2].sum(1)).all()


def test_a_caption_whose_loss_runs_a_decoder():
    vocabulary = ("<start>", "<end>", "<unknown>", "a", "dog", "runs")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh())
            self.decoder = CaptionDecoder(5, len(vocabulary), width=4, hidden=6)

        def forward(self, x):
            return self.decoder.start(self.body(x))

    model = Model().eval()
    output = fa.Output(vocabulary, "tokens", decoder=model.decoder)
    adapter = fa.wrap(model, outputs={"caption": output})
    result = adapter.refine(
        torch.randn(2, 3, 2, 2), fa.Captions("a dog"), strategy="newton", pivots="body.2"
    )
    assert result.improved.all()


def test_a_pivot_whose_gradient_is_expanded():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3)))

    result = fa.wrap(Pooled(), labels=LABELS).refine(
        torch.randn(3, 3, 8, 8), fa.Labels({"a": 1, "b": 0}), strategy="newton", pivots="body",
        steps=3,
    )  # fmt: skip
    assert result.improved.all()


def test_the_old_name_of_an_option_still_works():
    adapter, images, told = tiny_adapter(), tiny_images(2), fa.Labels({"cat": 1})
    new = adapter.refine(images, told, strategy="newton", prior_std=2.0)
    with pytest.warns(DeprecationWarning, match="reach= is now called prior_std="):
        old = adapter.refine(images, told, strategy="newton", reach=2.0)
    assert torch.equal(old.refined, new.refined)
    with pytest.warns(DeprecationWarning, match="prior_std"):
        options = fa.NewtonOptions(reach=3.0)
    assert options == fa.NewtonOptions(prior_std=3.0)
    checkpoint = fa.Defaults("newton", options={"reach": 2.0})  # as an older config has it
    loaded = fa.Adapter(adapter.model, adapter.outputs, defaults=checkpoint)
    with pytest.warns(DeprecationWarning, match="prior_std"):
        assert torch.equal(loaded.refine(images, told).refined, new.refined)


def test_a_status_asks_for_more_steps_only_where_they_would_matter():
    """The default steps of an image whose last step had a small share in the fall of its loss."""
    adapter, images = tiny_adapter(), tiny_images()
    label = adapter.labels[0]
    for steps in (1, 2, 3):
        result = adapter.refine(images, fa.Labels({label: 1}), strategy="newton", steps=steps)
        fell = result.losses[0] - result.losses[steps]
        share = (result.losses[steps - 1] - result.losses[steps]) / fell
        more = f"ran out of steps: try steps={2 * steps}"
        expected = tuple(CONVERGED if last <= 0.1 else more for last in share.tolist())
        assert result.status == expected
        assert (steps > 1) or set(expected) == {more}, "the only step has all of the fall"


@pytest.mark.parametrize("far", [1e-15, 1e-8, 1e8, 1e15])
@pytest.mark.parametrize("pivots", ["1", ["0", "1"]])
def test_the_scale_of_an_activation_changes_nothing(far, pivots):
    class Times(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            return x * self.by

    def refined(by):
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 8, 3), Times(by), Times(1 / by), nn.Conv2d(8, 8, 3), nn.ReLU()]
        model = nn.Sequential(*first, nn.Flatten(), nn.Linear(8 * 16, 3)).eval()
        told = fa.Labels([{"a": 1}, {"a": 0, "b": 1}, {"c": 0}])
        images = torch.rand(3, 3, 8, 8)
        return fa.wrap(model, labels=list("abc")).refine(images, told, pivots=pivots)

    usual, result = refined(1.0), refined(far)
    assert result.improved.all()
    torch.testing.assert_close(result.losses, usual.losses, rtol=1e-3, atol=1e-3)
