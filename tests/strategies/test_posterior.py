import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import feedback_adapter as fa
from feedback_adapter.gaussian import conditional, latent_move, nearest_covariance
from feedback_adapter.prior import LabelPrior

LABELS = tuple("abcdef")


def statistics(images: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels b and c follow a; the others are independent."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(images, 6, generator=generator) < 0.3
    y[:, 1] = y[:, 0]
    y[:, 2] = ~y[:, 0]
    p = (0.3 + 0.4 * y.float() + 0.1 * torch.randn(images, 6, generator=generator)).clamp(0, 1)
    return p, y


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    made = fa.wrap(model, labels=LABELS)
    made.fit_prior(*statistics())
    return made


def test_conditional_is_the_textbook_formula():
    root = torch.randn(5, 5, dtype=torch.float64)
    covariance = root @ root.T
    mean, value = torch.randn(1, 5).double(), torch.randn(1, 5).double()
    known = torch.tensor([[True, False, True, False, False]])
    at, rest = [0, 2], [1, 3, 4]
    own = covariance[at][:, at] + 0.1 * torch.eye(2).double()
    gain = covariance[rest][:, at] @ torch.linalg.inv(own)
    expected = mean[0, rest] + gain @ (value - mean)[0, at]
    found = conditional(mean, covariance, value, known, 0.1)[0, rest]
    torch.testing.assert_close(found, expected)


def test_a_known_label_is_expected_from_the_others():
    root = torch.randn(5, 5, dtype=torch.float64)
    covariance = root @ root.T
    mean, value = torch.randn(2, 5).double(), torch.randn(2, 5).double()
    known = torch.tensor([[True, False, True, True, False]]).expand(2, 5)
    whole = conditional(mean, covariance, value, known, 0.1)
    without = known.clone()
    without[:, 2] = False
    expected = conditional(mean, covariance, value, without, 0.1)
    torch.testing.assert_close(whole[:, 2], expected[:, 2])


def test_latent_move_is_where_the_posterior_is_flat():
    """The gradient of log p(labels | logits + move) + log N(move; 0, covariance) is zero there."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator).double()
    covariance = root @ root.T / 3
    logits = torch.randn(3, 6, generator=generator).double()
    values = (torch.rand(3, 6, generator=generator) < 0.5).double()
    known = torch.rand(3, 6, generator=generator) < 0.6
    move = latent_move(logits, covariance, values, known)
    pull = (values - torch.sigmoid(logits + move)) * known
    torch.testing.assert_close(move, pull @ covariance, atol=1e-3, rtol=0)


def test_nearest_covariance_keeps_what_is_one_already():
    root = torch.randn(6, 3, dtype=torch.float64)
    covariance = root @ root.T
    found = nearest_covariance(covariance)
    away = ~torch.eye(6, dtype=torch.bool)
    assert torch.linalg.eigvalsh(found).min() > -1e-9
    torch.testing.assert_close(found[away], covariance[away], atol=0.05, rtol=0.05)


def test_couplings_come_from_models_that_have_not_seen_the_image():
    """Errors that go together couple labels; labels that the image explains aren't coupled."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4000, 1, generator=generator)
    seen = torch.randn(4000, 6, generator=generator)
    twins = torch.tensor([1.0, 1.0, 0, 0, 0, 0])
    truth = torch.rand(4000, 6, generator=generator) < (seen - 1 + 1.5 * shared * twins).sigmoid()
    prior = LabelPrior.fit(seen.sigmoid(), truth, held_out=seen - 1)
    assert prior.couplings[0, 1] > 0.5
    assert prior.couplings[2:, 2:].triu(1).abs().max() < 0.3


def test_joint_is_ridge_regression_for_every_known_set():
    p, y = statistics()
    prior = LabelPrior.fit(p, y)
    known = torch.tensor([True, False, False, True, False, True])
    x = torch.cat([p, y[:, known].float()], 1).double()
    mean = x.mean(0)
    gram = (x - mean).T @ (x - mean) / len(x) + 0.01 * torch.eye(x.shape[1]).double()
    target = y.double() - y.double().mean(0)
    weights = torch.linalg.solve(gram, (x - mean).T @ target / len(x))
    expected = ((x - mean) @ weights + y.double().mean(0)).clamp(1e-4, 1 - 1e-4).logit()
    logits = p.clamp(1e-4, 1 - 1e-4).logit()
    found = logits + prior.joint_move(logits, y.float(), known.expand(len(p), 6), 0.01)
    torch.testing.assert_close(found[:, ~known].double(), expected[:, ~known], atol=2e-3, rtol=1e-3)


def test_auto_uses_the_statistics_where_a_label_is_known(adapter):
    images = torch.randn(2, 3, 2, 2)
    result = adapter.refine(images, fa.Labels([{"a": 1}, {}]))
    assert result.strategies == ("posterior", "newton")
    p = torch.as_tensor(result.after).sigmoid()
    before = torch.as_tensor(result.before).sigmoid()
    assert p[0, 1] > before[0, 1]
    assert p[0, 2] < before[0, 2]
    assert p[0, 0] > 0.999
    assert torch.equal(p[1], before[1])
    assert adapter.refine(images, fa.Labels({"a": 1}), strategy="residual").strategy == "residual"
    assert adapter.refine(images, fa.Labels({"a": 1}), step_size=0.1).strategy == "residual"
    assert adapter.refine(images, fa.Labels({"a": 1}), latent=0.2).strategy == "posterior"


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([None, 0, 1]), min_size=6, max_size=6))
def test_an_image_does_not_depend_on_its_batch_mates(values):
    torch.manual_seed(1)
    made = fa.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), labels=LABELS)
    made.fit_prior(*statistics())
    images = torch.randn(3, 3, 2, 2)
    told = [{"a": 1}, dict(zip(LABELS, values, strict=True)), {"b": 0, "f": 1}]
    whole = made.refine(images, fa.Labels(told), strategy="posterior").after
    alone = made.refine(images[1:2], fa.Labels(told[1:2]), strategy="posterior").after
    torch.testing.assert_close(whole[1:2], alone, atol=1e-5, rtol=0)


def test_saved_and_loaded(adapter, tmp_path):
    prior = adapter.priors["output"]
    prior.save(tmp_path / "prior.safetensors")
    again = LabelPrior.load(tmp_path / "prior.safetensors")
    torch.testing.assert_close(again.covariance, prior.covariance, atol=1e-4, rtol=2e-3)


def test_without_statistics_it_says_what_to_do():
    made = fa.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), labels=LABELS)
    with pytest.raises(fa.FeedbackAdapterError, match="fit_prior"):
        made.refine(torch.randn(1, 3, 2, 2), fa.Labels({"a": 1}), strategy="posterior")
    with pytest.raises(fa.FeedbackAdapterError, match="shape"):
        made.fit_prior(torch.rand(3, 6), torch.rand(2, 6))


@pytest.mark.parametrize(
    "bad",
    [
        {"joint": 30.0},
        {"joint_ridge": 0.0},
        {"scale": 0},
        {"latent": "much"},
        {"bias": float("nan")},
    ],
)
def test_options_are_checked(bad):
    with pytest.raises(fa.FeedbackAdapterError, match="out of range"):
        fa.PosteriorOptions(**bad)


def test_text_counts_by_itself_too(adapter):
    """Without statistics that say anything, what is left is Bayes' rule."""
    adapter.fit_prior(torch.full((4, 6), 0.5), torch.tensor([[1.0], [0.0]]).repeat(2, 6))
    independent = dataclasses.replace(
        adapter.priors["output"],
        covariance=torch.eye(6).expand(3, 6, 6) * 1e-9,
        couplings=torch.zeros(6, 6),
    )
    adapter.priors["output"] = independent
    images, told = torch.randn(2, 3, 2, 2), fa.Text("a b")
    result = adapter.refine(images, told, strategy="posterior", joint=0.0)
    bayes = told.clamp(result.outputs_before)
    torch.testing.assert_close(result.after, bayes["output"], atol=1e-4, rtol=0)


def test_defaults_of_several_strategies(adapter):
    made = fa.Adapter(
        adapter.model, adapter.outputs, priors=adapter.priors,
        defaults=fa.Defaults(others={"posterior": {"joint": 0.1}}),
    )  # fmt: skip
    images, told = torch.randn(2, 3, 2, 2), fa.Labels({"a": 1})
    own = made.refine(images, told).after
    said = adapter.refine(images, told, strategy="posterior", joint=0.1).after
    assert torch.equal(own, said)
