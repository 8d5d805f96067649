"""Hard EM of the published model, the counts, and what is learned of known models."""

import pytest
import torch

from fa_backward.decoder import Decoder
from fa_backward.em import count, hard_em
from fa_backward.templates import Templates


def mixture(n=120, seed=0):
    """Data of a known mixture of two decoders."""
    torch.manual_seed(seed)
    truth = Decoder(3, 2, components=2, factor=2, gates=0, hidden=0)
    torch.nn.init.normal_(truth.write.weight, 0.1, 0.4)
    above = torch.rand(n, 3, 4, 4)
    parent = torch.randint(2, (n,))
    component = torch.where(torch.rand(n) < 0.9, parent, 1 - parent)
    with torch.no_grad():
        target = truth(above)[1][torch.arange(n), component]
    return above, target + 0.1 * torch.randn(target.shape), parent, component


def test_em_never_lowers_its_objective_and_finds_the_components():
    above, target, parent, component = mixture()
    decoder = Decoder(3, 2, components=2, factor=2, gates=0, hidden=0)
    found, table, objectives = hard_em(decoder, above, target, parent, 2, rounds=12, steps=40)
    steps = torch.tensor(objectives).diff()
    assert (steps >= -1e-6 * abs(objectives[0])).all(), objectives
    agree = (found == component).float().mean()
    assert max(agree, 1 - agree) > 0.95
    assert decoder.log_spread.exp().max() < 0.15  # 0.1 is the truth
    assert table.exp().max(1).values.min() == pytest.approx(0.9, abs=0.08)


def test_counts_have_a_prior_and_sum_to_1():
    table = count(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 2]), torch.zeros(2, 3))
    torch.testing.assert_close(table.exp(), torch.tensor([[1, 3, 2], [2, 2, 2]]) / 6)


def test_templates_of_a_known_mixture_are_recovered():
    torch.manual_seed(1)
    n, shape = 600, (4, 3, 3)
    on = torch.rand(6, *shape) < 0.4
    means = torch.where(on, 1 + torch.rand(6, *shape), 0.0)
    cluster = torch.arange(n) % 6
    category = (cluster >= 4).long()
    data = means[cluster]
    data = torch.where(data > 0, data + 0.1 * torch.randn(n, *shape), 0.0).relu()
    templates = Templates(shape, 6, 2)
    nearest = templates.fit(data, category, [4, 2])
    assert (templates.category == torch.tensor([0, 0, 0, 0, 1, 1])).all()
    torch.testing.assert_close(templates.log_prior.exp().sum(1), torch.ones(2))
    assert templates.log_prior.exp()[0].max() == pytest.approx(0.25, abs=0.01)
    gate = torch.sigmoid(templates.logit.float())
    for k in range(6):
        members = cluster[nearest[:, 0] == k]
        assert (members == members[0]).all()
        true = means[members[0]]
        assert ((gate[k] > 0.5) == (true > 0)).all()
        difference = (templates.mean[k].float() - true)[true > 0].abs()
        assert difference.max() < 0.05
    assert templates.spread == pytest.approx(torch.full((4,), 0.1), abs=0.02)
