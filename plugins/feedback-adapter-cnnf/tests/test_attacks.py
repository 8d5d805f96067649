"""Single attacks where the optimum is known: a linear model's worst case is a corner."""

import pytest
import torch
from torch import nn

from fa_cnnf.attacks import Objective, apgd, apgd_targeted, pgd, spsa, square
from fa_cnnf.attacks.apgd import checkpoints
from fa_cnnf.attacks.square import share_of_pixels
from feedback_adapter.errors import OptionsError

EPS = 0.2
ATTACKS = {
    "pgd": lambda o, x, s, eps: pgd(o, x, s, eps, 20),
    "apgd": lambda o, x, s, eps: apgd(o, x, s, eps, 20),
    "spsa": lambda o, x, s, eps: spsa(o, x, eps, 20, 64),
    "square": lambda o, x, s, eps: square(o, x, eps, 1000),
}


@pytest.fixture
def linear():
    """Two classes whose margin is linear in the 1 x 6 x 6 image, and images of both."""
    weight = torch.randn(36, dtype=torch.double)

    def views(images):
        margin = images.flatten(1) @ weight
        return torch.stack([margin, -margin], 1)[None]

    x = (torch.rand(8, 1, 6, 6, dtype=torch.double) - 0.5) * 1.6
    y = views(x)[0].argmax(-1)
    start = torch.rand_like(x) * 2 - 1
    return weight, views, x, y, start


def corner(weight, x, y, eps):
    """The worst image of a linear margin: each pixel at the end that its weight asks for."""
    step = (1 - 2 * y).view(-1, 1, 1, 1) * weight.sign().view(1, 1, 6, 6)
    return (x - eps * step).clamp(-1, 1)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_linear_model_is_brought_to_its_worst_case(linear, name):
    weight, views, x, y, start = linear
    # surrogate: go on where the image is fooled, up to the largest loss
    objective = Objective(views, y, loss="margin", surrogate=True)
    rows = torch.arange(len(x))
    least, best = objective(x, rows)[0], objective(corner(weight, x, y, EPS), rows)[0]
    found = objective(ATTACKS[name](objective, x, start, EPS), rows)[0]
    share = ((found - least) / (best - least)).min()
    assert share > {"pgd": 1 - 1e-9, "apgd": 1 - 1e-9, "spsa": 0.95, "square": 0.8}[name]
    assert (found <= best + 1e-9).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_stay_in_the_ball_and_in_the_range_of_pixels(linear, name):
    _, views, x, y, start = linear
    for loss in ("ce", "margin"):
        found = ATTACKS[name](Objective(views, y, loss=loss), x, start, 0.7)
        assert (found - x).abs().max() <= 0.7 + 1e-12
        assert found.abs().max() <= 1


def test_an_image_that_can_not_be_fooled_is_not(linear):
    weight, views, x, y, start = linear
    objective = Objective(views, y)
    safe = views(corner(weight, x, y, 0.05))[0].argmax(-1) == y
    assert 0 < safe.sum() < len(safe)  # of both kinds
    for attack in ATTACKS.values():
        found = views(attack(objective, x, start, 0.05))[0].argmax(-1) == y
        assert found[safe].all()
    assert not (views(apgd(objective, x, start, 0.05, 20))[0].argmax(-1) == y)[~safe].any()


def test_targeted_attack_finds_the_class_that_is_nearest():
    """Of a linear model with five classes, some target must fool if any corner does."""
    torch.manual_seed(1)
    model = nn.Linear(16, 5).double().requires_grad_(False)
    x = (torch.rand(20, 1, 4, 4, dtype=torch.double) - 0.5) * 1.6

    def views(images):
        return model(images.flatten(1))[None]

    y = views(x)[0].argmax(-1)
    weight = model.weight
    eps, unfoolable = 0.12, []
    for row in range(len(x)):
        gaps = []
        for target in range(5):
            if target != y[row]:
                change = (weight[target] - weight[y[row]]).sign().view(1, 1, 4, 4)
                z = views((x[row : row + 1] + eps * change).clamp(-1, 1))[0, 0]
                gaps.append(float(z[target] - z[y[row]]))
        unfoolable.append(max(gaps) <= 0)
    start = torch.rand_like(x) * 2 - 1
    found = apgd_targeted(Objective(views, y), x, start, eps, 20, targets=4)
    right = views(found)[0].argmax(-1) == y
    assert right.tolist() == unfoolable
    assert 0 < sum(unfoolable) < 20


def test_an_image_result_does_not_depend_on_its_batch_mates(linear):
    _, views, x, y, start = linear
    for attack in (ATTACKS["pgd"], ATTACKS["apgd"], ATTACKS["spsa"]):
        together = attack(Objective(views, y), x, start, 0.05)
        alone = [
            attack(Objective(views, y[i : i + 1]), x[i : i + 1], start[i : i + 1], 0.05)
            for i in range(2)
        ]
        torch.testing.assert_close(together[:2], torch.cat(alone), rtol=0, atol=1e-12)


def test_checkpoints_of_the_paper():
    assert checkpoints(100)[:5] == [22, 41, 57, 70, 80]  # section 3.3: 0.22, 0.41, 0.57, 0.7, 0.8
    assert share_of_pixels(1) == 0.8
    assert share_of_pixels(9000) == 0.8 / 2**9


def test_losses_that_do_not_fit_are_named(linear):
    _, views, _, y, _ = linear
    for wrong in ({"loss": "hinge"}, {"loss": "dlr"}, {"targets": y}):
        with pytest.raises(OptionsError, match="not possible"):
            Objective(views, y, **wrong)
