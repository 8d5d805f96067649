"""What refine promises: per image, downhill, by the formulas, and errors that name the image."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import feedback_adapter as fa
from feedback_adapter.plugins import strategy as strategy_named
from feedback_adapter.refinement import CONVERGED
from feedback_adapter.testing import LABELS, check_strategy, tiny_adapter, tiny_images

STRATEGIES = ["residual", "layerwise"]
SOLVERS = {"adam": (fa.Adam(), 0.1), "sgd": (fa.SGD(), 30.0), "lbfgs": (fa.LBFGS(), 1.0)}


def lively(model: nn.Module) -> nn.Module:
    """Batch norm statistics of real activations, so that logits differ between images."""
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(16, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def resnet() -> fa.Adapter:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
    nn.init.normal_(model.fc.weight, 0, 0.1)
    return fa.wrap(lively(model), labels=LABELS)


def labels_of(batch: int) -> fa.Labels:
    """Different labels for different images, nothing for every fifth."""
    rows = [{"cat": i % 2, "dog": float(i % 3 == 0), "snow": i % 7 / 6} for i in range(batch)]
    return fa.Labels([row if i % 5 else None for i, row in enumerate(rows)])


def one(evidence: fa.Evidence, image: int) -> fa.Evidence:
    return evidence.take(torch.tensor([image]))


# ---- an image's result is its own ----

# L-BFGS takes small differences of gradients, in which the rounding of float32 is large.
ATOL = {"adam": 1e-5, "sgd": 1e-5, "lbfgs": 1e-3}


def check_alone(adapter, images, told, atol, some, **arguments):
    batch = adapter.refine(images, told, patience=1, **arguments)
    assert len(set(batch.steps.tolist())) > 2  # images left the batch at different steps
    for image in some:
        alone = adapter.refine(images[image : image + 1], one(told, image), patience=1, **arguments)
        assert alone.steps[0] == batch.steps[image]
        assert alone.status[0] == batch.status[image]
        torch.testing.assert_close(alone.before[0], batch.before[image], atol=atol, rtol=0)
        torch.testing.assert_close(alone.after[0], batch.after[image], atol=atol, rtol=0)
        torch.testing.assert_close(alone.losses[:, 0], batch.losses[:, image], atol=atol, rtol=0)


@pytest.mark.parametrize("pivots", [["again#0"], ["again#0", "stem"]], ids=len)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_image_alone_is_as_in_a_batch_of_64(strategy, solver, pivots):
    which, step_size = SOLVERS[solver]
    check_alone(
        tiny_adapter(), tiny_images(64), labels_of(64), ATOL[solver], range(0, 64, 3),
        strategy=strategy, pivots=pivots, solver=which, step_size=step_size, steps=8,
        tolerance=0.03,
    )  # fmt: skip


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_image_alone_is_as_in_a_batch_of_64_of_a_resnet(resnet, strategy, solver):
    """No ReLU follows the pivot: see the next test."""
    step_size, tolerance = {"adam": (0.06, 0.1), "sgd": (10.0, 0.02)}[solver]
    check_alone(
        resnet, torch.randn(64, 3, 64, 64), labels_of(64), 1e-5, [0, 1, 2, 13, 30, 63],
        strategy=strategy, pivots="layer4", solver=SOLVERS[solver][0], step_size=step_size,
        steps=6, tolerance=tolerance,
    )  # fmt: skip


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_image_looks_at_another(strategy, solver, keep):
    """In float64 to 1e-10, for every solver: the method itself mixes no images.

    In float32 PyTorch's kernels round differently for other batch sizes. Where a ReLU that
    follows the pivot sits within rounding of zero the gradient jumps, and after a few steps
    that is more than 1e-5, whatever the method does.
    """
    which, step_size = SOLVERS[solver]
    check_alone(
        tiny_adapter(double=True), tiny_images(24).double(), labels_of(24), 1e-10, range(24),
        strategy=strategy, pivots=["again#1", "stem"], solver=which, step_size=step_size, steps=8,
        tolerance=0.05 if solver == "adam" else 0.03, keep=keep,
    )  # fmt: skip


def test_no_image_looks_at_another_through_relus(resnet):
    resnet.model.double()
    try:
        check_alone(
            resnet, torch.randn(6, 3, 32, 32).double(), labels_of(6), 1e-10, range(1, 6),
            pivots=["layer3", "layer4"], step_size=0.06, steps=6, tolerance=0.15,
        )  # fmt: skip
    finally:
        resnet.model.float()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_keep_their_promises(strategy):
    spec = strategy_named(strategy)
    check_strategy(spec)
    check_strategy(spec, spec.options(steps=6, step_size=0.05), pivots=["stem", "again#0"])


def test_reference_depends_on_batch_mates_by_design(resnet):
    images, told = torch.randn(4, 3, 64, 64), labels_of(4)
    options = fa.ResidualOptions.reference(steps=5, step_size=0.1, weight_decay=0.1)
    batch = resnet.refine(images, told, strategy="residual", pivots="layer3", options=options)
    alone = resnet.refine(
        images[1:2], one(told, 1), strategy="residual", pivots="layer3", options=options
    )
    assert (alone.after[0] - batch.after[1]).abs().max() > 1e-3
    assert batch.steps.tolist() == [5] * 4


# ---- images of which nothing is known ----


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_images_without_evidence_stay_exactly(strategy, solver, keep):
    told = fa.Labels([{"cat": 1}, None, {"cat": None}, {"snow": 0}])
    result = tiny_adapter().refine(
        tiny_images(4), told, strategy=strategy, pivots=["stem", "again#0"],
        solver=SOLVERS[solver][0], keep=keep, proximal=1e-3,
    )  # fmt: skip
    assert torch.equal(result.after[1:3], result.before[1:3])
    assert (result.after[[0, 3]] != result.before[[0, 3]]).any(1).all()
    assert result.losses[:, 1:3].abs().max() == 0
    assert result.status[1:3] == (CONVERGED, CONVERGED)


@pytest.mark.parametrize("patience", [1, None])
def test_nothing_known_of_any_image(patience):
    result = tiny_adapter().refine(tiny_images(2), fa.Labels({}), patience=patience)
    assert torch.equal(result.after, result.before)


def test_batches_of_none_and_one():
    adapter = tiny_adapter()
    none = adapter.refine(tiny_images(4)[:0], fa.Labels({"cat": 1}))
    assert none.after.shape == none.before.shape == (0, 4)
    assert none.losses.shape == (1, 0)
    assert none.steps.shape == (0,)
    assert none.status == ()
    assert none.known["output"].shape == (0, 4)
    single = adapter.refine(tiny_images(4)[:1], fa.Labels({"cat": 1}))
    assert single.after.shape == (1, 4)
    assert single.losses[-1, 0] < single.losses[0, 0]


# ---- downhill, and what the numbers mean ----


@pytest.mark.parametrize(
    ("name", "build", "pivot"),
    [
        ("timm", lambda: timm.create_model("resnet18", num_classes=3), "layer4.0"),
        ("torchvision", lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=3), "stage4.1"),
    ],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evidence_moves_the_known_up_to_what_is_said(name, build, pivot, strategy):
    model = lively(build())
    nn.init.normal_(model.fc.weight, 0, 0.3)
    adapter = fa.wrap(model, labels=["x", "y", "z"])
    result = adapter.refine(
        torch.randn(3, 3, 64, 64), fa.Labels({"x": [1, 0, 1], "z": [0, 1, None]}),
        strategy=strategy, pivots=pivot, steps=30, step_size=0.3,
    )  # fmt: skip
    assert (result.losses[-1] < 0.5 * result.losses[0]).all()
    moved = (result.after - result.before).sign()
    assert moved[:, 0].tolist() == [1, -1, 1]
    assert moved[:2, 2].tolist() == [-1, 1]
    assert result.known["output"].tolist() == [[True, False, True]] * 2 + [[True, False, False]]


def test_losses_are_those_of_the_outputs():
    told, images = fa.Labels({"cat": 1, "dog": 0}), tiny_images(3)
    result = tiny_adapter().refine(images, told, steps=6, patience=None, keep="last", trace=True)
    specs = result.outputs_before.specs
    for step, logits in enumerate(result.trace["output"]):
        loss = told.loss(fa.Outputs({"output": logits}, specs))
        torch.testing.assert_close(loss, result.losses[step])
    assert torch.equal(result.trace["output"][0], result.before)
    assert torch.equal(result.trace["output"][-1], result.refined)
    by_hand = nn.functional.softplus(-result.before[:, 0]) + nn.functional.softplus(
        result.before[:, 1]
    )
    torch.testing.assert_close(result.losses[0], by_hand)


def test_steps_and_convergence():
    told, images = fa.Labels([{"cat": 1}, None]), tiny_images(2)
    refine = tiny_adapter().refine
    never = refine(images, told, steps=7, patience=None)
    assert never.losses.shape == (8, 2)
    assert never.steps.tolist() == [7, 7]
    assert never.status == ("ran out of steps: try steps=14",) * 2
    early = refine(images, told, steps=7, patience=2)
    assert early.losses.shape == (8, 2)
    assert early.steps.tolist() == [7, 2]  # two steps in a row without a fall
    assert early.status == ("ran out of steps: try steps=14", CONVERGED)
    with pytest.warns(DeprecationWarning, match="use Refinement.status"):
        assert early.converged.tolist() == [False, True]
    still = refine(images, told, steps=7, tolerance=0.9, patience=1)  # no step gains 90%
    assert still.steps.tolist() == [1, 1]
    assert (still.losses[1:] == still.losses[1]).all()  # it keeps its last value
    none = refine(images, told, steps=0)
    assert none.losses.shape == (1, 2)
    assert torch.equal(none.refined, none.before)


def test_layerwise_takes_its_steps_per_pivot():
    result = tiny_adapter().refine(
        tiny_images(2), fa.Labels({"cat": 1}), strategy="layerwise",
        pivots=["again#0", "stem", "block"], steps=4, patience=None,
    )  # fmt: skip
    assert result.losses.shape == (1 + 3 * 4, 2)
    assert result.steps.tolist() == [12, 12]
    assert result.pivots == ("again", "stem", "block")


def test_the_order_of_pivots_is_the_models():
    images, told = tiny_images(2), fa.Labels({"cat": 1})
    refine = tiny_adapter().refine
    for strategy in STRATEGIES:
        one_way = refine(images, told, strategy=strategy, pivots=["stem", "again#0", "again#1"])
        other = refine(images, told, strategy=strategy, pivots=["again#1", "stem", "again#0"])
        assert torch.equal(one_way.after, other.after)


def test_more_pivots_reach_further():
    images, told = tiny_images(3), fa.Labels({"cat": 1, "snow": 0})
    refine = tiny_adapter(double=True).refine
    options = {"step_size": 1e-3, "steps": 1, "solver": fa.SGD(), "unit": "absolute"}
    early, late, both = (
        refine(images.double(), told, pivots=pivots, **options)
        for pivots in (["stem"], ["again#1"], ["stem", "again#1"])
    )
    gain = [(r.losses[0] - r.losses[1]).mean() for r in (early, late, both)]
    # to first order a step gains |gradient|^2, and gradients of pivots add up
    torch.testing.assert_close(gain[2], gain[0] + gain[1], rtol=0.02, atol=0)


class Rising(nn.Module):
    """Evidence loss -log sigmoid(z) of z = 1 - x^2: large steps overshoot."""

    def __init__(self) -> None:
        super().__init__()
        self.pivot = nn.Identity()

    def forward(self, x):
        return 1 - self.pivot(x).square().sum(1, keepdim=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_best_and_last(strategy):
    adapter = fa.wrap(Rising().double(), labels=["yes"])
    x = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    options = {
        "strategy": strategy, "pivots": "pivot", "solver": fa.SGD(momentum=0), "unit": "absolute",
        "step_size": 2.5, "steps": 6, "patience": None, "trace": True,
    }  # fmt: skip
    best, last = (
        adapter.refine(x, fa.Labels({"yes": 1}), keep=k, **options) for k in ("best", "last")
    )
    assert torch.equal(best.losses, last.losses)
    assert torch.equal(last.refined, last.trace["output"][-1])
    assert (last.losses[-1] > last.losses.amin(0)).any()  # it did overshoot
    which = best.losses.argmin(0)
    assert torch.equal(best.refined, best.trace["output"][which, torch.arange(2)])
    for result in (best, last):  # the loss of a result is that of what is in `refined`
        softplus = nn.functional.softplus(-result.refined[:, 0])
        torch.testing.assert_close(result.loss, softplus)
        assert torch.equal(result.improved, result.loss < result.losses[0])
    assert torch.equal(best.kept, which)
    assert best.improved.tolist() == (which > 0).tolist()
    assert last.kept.tolist() == [6, 6]


def test_layerwise_goes_on_from_the_best_of_the_pivot_before():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x):
            return 1 - self.second(self.first(x)).square().sum(1, keepdim=True)

    adapter = fa.wrap(Twice().double(), labels=["yes"])
    x = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    options = {
        "strategy": "layerwise", "solver": fa.SGD(momentum=0), "unit": "absolute",
        "step_size": 2.5, "steps": 5, "patience": None,
    }  # fmt: skip
    told = fa.Labels({"yes": 1})
    once = adapter.refine(x, told, pivots="first", **options)
    twice = adapter.refine(x, told, pivots=["first", "second"], **options)
    assert torch.equal(twice.losses[:6], once.losses)
    softplus = nn.functional.softplus(-twice.refined[:, 0])
    assert (softplus <= once.losses.amin(0) + 1e-12).all()
    torch.testing.assert_close(softplus, twice.losses.amin(0))
    torch.testing.assert_close(softplus, twice.loss)
