"""Attacks: what must hold of any of them, on a net that is trained here in a second."""

import gzip
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fa_cnnf
from fa_cnnf import attacks
from fa_cnnf.attacks import Objective
from fa_cnnf.attacks.suite import KINDS, Budget, attack, views_of
from fa_cnnf.data import fashion_mnist
from fa_cnnf.layers import AdaReLU
from feedback_adapter.errors import InputError, OptionsError


@pytest.fixture(scope="module")
def trained():
    """A CNN-F that tells bright stripes apart, and 40 images of them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    y = torch.arange(40) % 4
    x = torch.rand(40, 1, 8, 8) * 1.2 - 1
    for row, label in enumerate(y):
        x[row, :, 2 * label : 2 * label + 2] += 0.8
    plain = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 4)
    )
    model = fa_cnnf.convert(plain, steps=1, step_size=0.1)
    parameters = list(model.parameters())
    for _ in range(150):
        logits = model.unroll(x).logits
        loss = F.cross_entropy(logits.flatten(0, 1), y.repeat(2))
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.data -= 0.2 * g
    assert (model(x).argmax(-1) == y).all()
    return model, x, y


def accuracy(rows, kind, readout="last", iteration=1):
    found = {
        r.eps: r.accuracy
        for r in rows
        if (r.attack, r.readout, r.iteration) == (kind, readout, iteration)
    }
    return [found[e] for e in sorted(found)]


SMALL = Budget(steps=5, targets=2, queries=20, samples=2, spsa_steps=2)


def test_accuracy_falls_to_zero_as_eps_grows(trained):
    model, x, y = trained
    rows = attack(model, x, y, [0.02, 0.1, 0.5], readouts=["1"], kinds=KINDS, budget=SMALL)
    worst = accuracy(rows, "worst")
    assert worst == sorted(worst, reverse=True)
    assert worst[-1] == 0
    assert accuracy(rows, "none") == [100]


@pytest.mark.parametrize("kind", ["pgd", "bpda", "spsa", "square"])
def test_more_steps_never_weaken_the_attack(trained, kind):
    model, x, y = trained
    hits = []
    for steps in (0, 1, 3, 10):
        budget = Budget(steps=steps, spsa_steps=steps, samples=8, queries=1 + 9 * steps)
        (row,) = [
            r
            for r in attack(model, x, y, [0.2], readouts=["1"], kinds=[kind], budget=budget)
            if r.attack.startswith("after-")
        ]
        hits.append(row.accuracy)
    assert hits == sorted(hits, reverse=True)
    assert hits[-1] < hits[0]


@pytest.mark.parametrize("readout", ["1", "avg"])
def test_the_loss_sees_the_readout_that_is_scored(trained, readout):
    model, x, _ = trained
    own = views_of(model, x, readout)[0]
    torch.testing.assert_close(own, model(x, 1, "avg" if readout == "avg" else "last"))


def test_cut_leaves_values_alone_but_not_gradients(trained):
    model, x, _ = trained
    grads = []
    for kind in ("pgd", "cut"):
        leaf = x.clone().requires_grad_()
        logits = views_of(model, leaf, "1", kind)
        torch.testing.assert_close(logits, views_of(model, x, "1"))
        grads += torch.autograd.grad(logits.square().sum(), leaf)
    assert not torch.allclose(grads[0], grads[1])


def test_worst_counts_an_image_once_over_all_attacks(trained):
    model, x, y = trained
    rows = attack(
        model, x[:12], y[:12], [0.05, 0.1], readouts=["1", "avg"],
        source=model, budget=SMALL, each=True,
    )  # fmt: skip
    names = [SMALL.name(kind) for kind in (*KINDS, "transfer")]
    assert len(rows) == 2 * (1 + 2 * (len(names) + 1))
    for readout, iteration in (("last", 1), ("avg", None)):
        worst = accuracy(rows, "worst", readout, iteration)
        for name in names:
            alone = accuracy(rows, name, readout, iteration)
            assert all(w <= a for w, a in zip(worst, alone, strict=True))


def test_attacking_only_what_still_stands_gives_the_same_worst_case(trained):
    model, x, y = trained
    kinds = ["pgd", "cut", "apgd-ce", "bpda", "square"]
    both = [
        attack(model, x, y, [0.05, 0.1], readouts=["1"], kinds=kinds, budget=SMALL, each=each)
        for each in (True, False)
    ]
    assert accuracy(both[0], "worst") == accuracy(both[1], "worst")
    after = [accuracy(both[1], f"after-{SMALL.name(kind)}") for kind in kinds]
    assert all(a >= b for a, b in itertools.pairwise(after))


def test_smooth_switches_change_gradients_but_no_value(trained):
    model, x, _ = trained
    leaf = x.clone().requires_grad_()
    exact, smooth = views_of(model, leaf, "1"), views_of(model, leaf, "1", "bpda")
    assert torch.equal(exact, smooth)
    grads = [torch.autograd.grad(v.square().sum(), leaf)[0] for v in (exact, smooth)]
    assert not torch.allclose(*grads)


def test_gradient_of_a_smooth_switch():
    x = torch.tensor([[-3.0, -0.1, 0.1, 3.0]], dtype=torch.double, requires_grad=True)
    value = AdaReLU()(x, fa_cnnf.State(0.1, smooth=0.1))
    (found,) = torch.autograd.grad(value.sum(), x)
    u = x.detach() / (0.1 * x.detach().square().mean().sqrt())
    share = u.sigmoid()
    torch.testing.assert_close(found, share + u * share * (1 - share), rtol=1e-6, atol=1e-8)
    assert torch.equal(value, x.relu())


def test_the_model_is_left_as_it_was(trained):
    model, x, y = trained
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = next(model.parameters()).requires_grad_(False)
    try:
        attack(model, x[:4], y[:4], [0.1], readouts=["0"], kinds=["pgd"], budget=Budget(1))
        assert [p.requires_grad for p in model.parameters()][:2] == [False, True]
    finally:
        first.requires_grad_(True)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None or not p.grad.isnan().any() for p in model.parameters())


@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": [0]},
        {"eps": []},
        {"eps": [25.5]},
        {"kinds": ["fgsm"]},
        {"readouts": ["mean"]},
        {"batch": 0},
    ],
)
def test_options_out_of_range_are_named(trained, wrong):
    model, x, y = trained
    options = {"eps": [0.1], "kinds": ["pgd"]} | wrong
    with pytest.raises(OptionsError, match=r"possible|out of range"):
        attack(model, x[:2], y[:2], options.pop("eps"), **options)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"queries": 0}, {"targets": 0}])
def test_budgets_out_of_range_are_named(wrong):
    with pytest.raises(OptionsError, match=next(iter(wrong))):
        Budget(**wrong)


@pytest.mark.parametrize("name", ["pgd", "apgd", "spsa", "square"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: (x - 0.45) / 0.225, r"values from -6.4\d* to .* pixels in \[-1, 1\]"),
        (lambda x: x * torch.nan, r"pixels in \[-1, 1\]"),
        (lambda x: (x * 100).to(torch.uint8), "floating-point"),
        (lambda x: (x + 1) * 127.5, "values from .* to 255"),
    ],
)
def test_images_outside_the_range_are_refused(name, change, says):
    """Clamped to [-1, 1], they would change by far more than eps, and attacks look too strong."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    x = torch.rand(8, 3, 4, 4) * 2 - 1
    x[0, 0, 0], x[0, 0, 1] = -1, 1
    objective = Objective(lambda z: net(z.float())[None], net(x).argmax(1))
    start = [torch.zeros_like(x)] if "pgd" in name else []
    function = getattr(attacks, name)
    assert (function(objective, x * (1 + 1e-6), *start, 0.06, 2) - x).abs().max() <= 0.06 + 1e-5
    with pytest.raises(InputError, match=says):
        function(objective, change(x), *start, 0.06, 2)


def test_the_suite_refuses_images_outside_the_range_before_it_scores_any(trained):
    model, x, y = trained
    with pytest.raises(InputError, match=r"pixels in \[-1, 1\]"):
        attack(model, x * 3, y, [0.1], readouts=["0"], kinds=["pgd"])


@pytest.mark.parametrize("eps", [-0.1, 3, float("nan")])
def test_a_ball_of_no_radius_is_refused(eps):
    with pytest.raises(OptionsError, match="eps=.* is out of range"):
        attacks.Ball(torch.zeros(1, 1), eps)


def test_a_start_of_another_shape_is_refused():
    objective = Objective(lambda z: z[None], torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match=r"start has shape \(2, 2\) for images \(2, 3\)"):
        attacks.pgd(objective, torch.zeros(2, 3), torch.zeros(2, 2), 0.1)


def test_idx_files_are_read_packed_or_not(tmp_path):
    pixels = bytes(range(8))
    raw = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 2, 2)) + pixels
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(
        bytes([0, 0, 8, 1]) + (2).to_bytes(4, "big") + bytes([3, 9])
    )
    images, labels = fashion_mnist.read(tmp_path)
    assert images.shape == (2, 1, 2, 2)
    assert images.flatten().tolist() == list(range(8))
    assert labels.tolist() == [3, 9]
    with pytest.raises(InputError, match="dataset-fashion-mnist"):
        fashion_mnist.read(tmp_path, "train")
