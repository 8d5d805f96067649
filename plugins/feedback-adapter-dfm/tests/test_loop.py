"""The loop: its equations step by step, its gradients, and each image on its own."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F

import fa_dfm
from fa_dfm import Known, State
from fa_dfm.errors import FeedbackAdapterError
from fa_dfm.nets import SmallResNet, SmallView


def by_hand(net, images, known, steps, cut=False):
    """The equations of `fa_dfm.convert`, written once more for the small network."""
    model, feedback = net.model, net.feedback
    s = model.stem.inner(images)
    p, u = torch.full_like(known.target, 1 / 3), None
    found = []
    for _ in range(steps):
        told = (1 - known.weight) * p + known.weight * known.target
        e = (3 * told - 1) / 2
        hidden = torch.zeros(len(images), 4, 24, 24, dtype=s.dtype)
        if u is not None:
            hidden = torch.tanh(F.conv2d(u, feedback.read.weight))
        if cut:
            e, hidden = 0 * e, 0 * hidden
        z = torch.cat([e, known.weight, known.weight * (3 * known.target - 1) / 2, hidden], 1)
        a = s + F.conv2d(z, feedback.maps.weight, padding=1)
        u = model.blocks(F.relu(model.norm(a)))
        o = model.head(u)
        p = o.softmax(1)
        found.append(o)
    return torch.stack(found)


@pytest.mark.parametrize("cut", [False, True])
def test_every_step_is_what_the_equations_say(trained, images, known, cut):
    expected = by_hand(trained, images, known, 4, cut)
    value = trained.unroll(images, known, 4, cut=cut).logits
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_steps_one_by_one_are_the_loop(trained, images, known):
    state = State()
    for _ in range(3):
        state = trained.step(images, state, known)
    assert torch.equal(state.logits, trained(images, known, 3))
    assert state.step == 3


def test_the_gradient_of_the_summed_loss_is_the_sum_step_by_step(trained, images, known):
    labels = torch.randint(3, (3, 24, 24))
    weights = list(trained.parameters())

    def loss(logits):
        return F.cross_entropy(logits, labels)

    state, terms = State(), []
    for _ in range(4):
        state = trained.step(images, state.detach(), known)
        terms.append(loss(state.logits))
    whole = torch.autograd.grad(sum(terms), weights, retain_graph=True)
    kept = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    single = [torch.autograd.grad(term, weights, **kept) for term in terms]
    for index, value in enumerate(whole):
        total = sum(gradients[index] for gradients in single)
        torch.testing.assert_close(value, total, rtol=0, atol=1e-6)


def test_truncated_gradients_are_those_of_a_detached_reference(trained, images, known):
    labels = torch.randint(3, (3, 24, 24))
    weights = list(trained.parameters())
    logits = trained.unroll(images, known, 3, truncate=True).logits
    value = torch.autograd.grad(F.cross_entropy(logits[-1], labels), weights)
    with torch.no_grad():
        state = trained.step(images, trained.step(images, State(), known), known)
    fresh = State(2, None, state.features, state.logits, state.prediction)  # the stem anew
    expected = torch.autograd.grad(
        F.cross_entropy(trained.step(images, fresh, known).logits, labels), weights
    )
    for a, b in zip(value, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_gradients_through_all_steps_differ_from_truncated_ones(trained, images, known):
    weight = trained.feedback.read.weight
    whole = trained.unroll(images, known, 3).logits[-1].square().sum()
    short = trained.unroll(images, known, 3, truncate=True).logits[-1].square().sum()
    (a,) = torch.autograd.grad(whole, weight)
    (b,) = torch.autograd.grad(short, weight)
    assert (a - b).abs().max() > 1e-6


@pytest.fixture
def tolerance(trained, images, known):
    """One that one image reaches within 12 steps and another doesn't."""
    with torch.no_grad():
        least = trained.unroll(images, known, 12).changes.amin(0).sort().values
    return float(least[0] + least[1]) / 2


@torch.no_grad()
@pytest.mark.parametrize("early", [False, True])
def test_an_image_alone_is_what_it_is_in_a_batch(trained, images, known, tolerance, early):
    options = {"steps": 12, "tolerance": tolerance if early else 0.0}
    together = trained.unroll(images, known, **options)
    assert (int(together.steps.min()) < 12) == early
    assert int(together.steps.max()) == 12
    for row in range(3):
        rows = torch.tensor([row])
        alone = trained.unroll(images[rows], known.take(rows), **options)
        torch.testing.assert_close(alone.logits[:, 0], together.logits[:, row], rtol=0, atol=1e-10)
        assert int(alone.steps) == int(together.steps[row])


@torch.no_grad()
def test_an_image_that_has_settled_stays_as_it_is(trained, images, known, tolerance):
    unroll = trained.unroll(images, known, steps=12, tolerance=tolerance)
    for row, taken in enumerate(unroll.steps.tolist()):
        for later in range(taken, 12):
            assert torch.equal(unroll.logits[later, row], unroll.logits[taken - 1, row])


@torch.no_grad()
def test_confidence_of_zero_is_no_evidence(trained, images, known):
    doubted = Known(known.weight * 0, known.target)
    assert torch.equal(trained(images, doubted, 3), trained(images, None, 3))
    assert (trained(images, known, 3) - trained(images, None, 3)).abs().max() > 0.01


@torch.no_grad()
def test_an_image_of_which_nothing_is_known_is_as_without_evidence(trained, images, known):
    value, expected = trained(images, known, 3)[2], trained(images, None, 3)[2]
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_shuffled_feedback_is_that_of_the_neighbour(trained, images):
    expected = trained.step(images, trained.unroll(images, steps=2).state.roll()).logits
    value = trained.unroll(images, steps=3, shuffle=True).logits[-1]
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


@torch.no_grad()
def test_two_threads_do_not_see_each_other(trained, images, known):
    expected = [trained(images, known, 3), trained(images, None, 3)]
    found = [[], []]

    def run(index):
        with torch.no_grad():
            for _ in range(10):
                found[index].append(trained(images, (known, None)[index], 3))

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in (0, 1):
        assert len(found[index]) == 10
        assert all(torch.equal(value, expected[index]) for value in found[index])


@torch.no_grad()
def test_leaky_updates_average(images):
    net = fa_dfm.convert(
        SmallView(labels=3, channels=2, width=8), update="leaky", tau=1.5, image_size=(24, 24)
    )
    net.double().eval()
    keep = torch.tensor(-1 / 1.5, dtype=torch.float64).exp()
    delta = net.model.blocks.inner(F.relu(net.model.norm(net.model.stem.inner(images))))
    state = net.unroll(images, steps=3).state
    expected = delta * (1 - keep) * (1 + keep + keep**2)  # A is zero: each step's delta is the same
    torch.testing.assert_close(state.features, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_class_predictions_enter_everywhere_alike():
    net = fa_dfm.convert(SmallResNet(width=16, blocks=1), image_size=(16, 16)).eval()
    net.feedback.classes.weight.normal_()
    images = torch.rand(2, 3, 16, 16)
    state = net.step(images, State())
    added = net.feedback(images, state, None, cut=False)
    assert added.shape == (2, 16, 1, 1)
    assert (net.step(images, state).logits - state.logits).abs().max() > 1e-3


def test_what_is_known_must_fit(trained, images, known):
    with pytest.raises(FeedbackAdapterError, match=r"this network needs \(3, 3, 24, 24\)"):
        trained(images, Known(known.weight[:, :, :8], known.target[:, :, :8]))
    with pytest.raises(FeedbackAdapterError, match="doesn't go with"):
        Known(known.weight[:2], known.target)
    with pytest.raises(FeedbackAdapterError, match="steps=0"):
        trained(images, steps=0)


def test_nothing_is_left_on_the_modules(trained, images, known):
    before = copy.deepcopy(trained.state_dict())
    attributes = [set(vars(module)) for module in trained.modules()]
    trained(images, known)
    assert attributes == [set(vars(module)) for module in trained.modules()]
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())


def test_batch_norms_keep_their_statistics_unless_told_otherwise():
    from torchvision.models import resnet18

    for frozen in (True, False):
        net = fa_dfm.convert(resnet18(num_classes=3), image_size=(32, 32), frozen_norms=frozen)
        mean = net.model.bn1.running_mean.clone()
        net.train()(torch.rand(4, 3, 32, 32), steps=2)
        assert torch.equal(mean, net.model.bn1.running_mean) == frozen
