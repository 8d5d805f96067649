"""Attacks: what must hold of any of them, on a net that is trained here in a second."""

import gzip

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fa_cnnf
from fa_cnnf import fashion_mnist
from fa_cnnf.attack import attack, logits_of, pgd
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


def test_accuracy_falls_to_zero_as_eps_grows(trained):
    model, x, y = trained
    rows = attack(model, x, y, [0.02, 0.1, 0.5], readouts=["1"], kinds=["pgd"], steps=20)
    worst = accuracy(rows, "worst")
    assert worst == sorted(worst, reverse=True)
    assert worst[-1] == 0
    assert accuracy(rows, "none") == [100]


def test_more_steps_never_weaken_the_attack(trained):
    model, x, y = trained
    hits = []
    for steps in (0, 1, 3, 10, 30):
        (row,) = [
            r
            for r in attack(model, x, y, [0.2], readouts=["1"], kinds=["pgd"], steps=steps)
            if r.attack.startswith("pgd")
        ]
        hits.append(row.accuracy)
    assert hits == sorted(hits, reverse=True)
    assert hits[-1] < hits[0]


def test_pgd_stays_in_the_ball_and_in_the_range_of_pixels():
    x = torch.tensor([[-0.95, 0.0, 0.95]])

    def losses_of(adv):
        return adv.sum(1) ** 2, torch.zeros(1, dtype=torch.bool)

    adv = pgd(losses_of, x, torch.ones_like(x), eps=0.1, steps=30)
    torch.testing.assert_close(adv, torch.tensor([[-0.85, 0.1, 1.0]]))


def test_pgd_finds_the_exact_worst_case_of_a_linear_model():
    weight, x = torch.tensor([1.0, -2.0, 0.5]), torch.zeros(4, 3)

    def losses_of(adv):
        return adv @ weight, torch.zeros(4, dtype=torch.bool)

    start = torch.rand(4, 3) * 2 - 1
    adv = pgd(losses_of, x, start, eps=0.3, steps=20)
    torch.testing.assert_close(adv, 0.3 * weight.sign().expand(4, 3))


@pytest.mark.parametrize("readout", ["1", "avg"])
def test_the_loss_sees_the_readout_that_is_scored(trained, readout):
    model, x, _ = trained
    own = logits_of(model, x, readout)[0]
    torch.testing.assert_close(own, model(x, 1, "avg" if readout == "avg" else "last"))


def test_cut_leaves_values_alone_but_not_gradients(trained):
    model, x, _ = trained
    grads = []
    for kind in ("pgd", "cut"):
        leaf = x.clone().requires_grad_()
        logits = logits_of(model, leaf, "1", kind)
        torch.testing.assert_close(logits, logits_of(model, x, "1"))
        grads += torch.autograd.grad(logits.square().sum(), leaf)
    assert not torch.allclose(grads[0], grads[1])


def test_worst_counts_an_image_once_over_all_attacks(trained):
    model, x, y = trained
    rows = attack(model, x, y, [0.05, 0.1], readouts=["1", "avg"], source=model, steps=5)
    for readout, iteration in (("last", 1), ("avg", None)):
        worst = accuracy(rows, "worst", readout, iteration)
        for kind in ("pgd5", "pgd5-first-pass", "pgd5-cut", "pgd5-all-iterates", "pgd5-transfer"):
            assert all(
                w <= a for w, a in zip(worst, accuracy(rows, kind, readout, iteration), strict=True)
            )


def test_the_model_is_left_as_it_was(trained):
    model, x, y = trained
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = next(model.parameters()).requires_grad_(False)
    try:
        attack(model, x[:4], y[:4], [0.1], readouts=["0"], steps=1)
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
        {"steps": -1},
    ],
)
def test_options_out_of_range_are_named(trained, wrong):
    model, x, y = trained
    options = {"eps": [0.1], "steps": 0} | wrong
    with pytest.raises(OptionsError, match=r"possible|out of range"):
        attack(model, x[:2], y[:2], options.pop("eps"), **options)


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
