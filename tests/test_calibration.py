"""Scale, bias and the weights of label statistics, by likelihood on held-out images."""

import pytest
import timm
import torch
from torch import nn

import feedback_adapter as fa

LABELS = tuple("abcdefghijkl")


def overconfident(images: int = 800):
    """Logits that are twice as large as they should be and a nat too high, and the truth."""
    generator = torch.Generator().manual_seed(0)
    right = 1.5 * torch.randn(images, 12, generator=generator) - 1
    right[:, 6:] = right[:, :6]
    truth = torch.rand(right.shape, generator=generator) < right.sigmoid()
    truth[:, 6:] = truth[:, :6]  # twins
    return 2 * right + 1, truth


@pytest.fixture
def adapter():
    return fa.wrap(nn.Identity(), labels=LABELS)


def test_scale_and_bias_are_found(adapter):
    logits, truth = overconfident()
    found = adapter.calibrate(logits, truth)
    assert found.scale == pytest.approx(0.5, abs=0.05)
    assert found.bias == pytest.approx(-0.5, abs=0.1)
    assert found.after < found.before - 0.05
    assert found.posterior == {}
    assert adapter.defaults.calibration == {"output": {"scale": found.scale, "bias": found.bias}}


def test_likelihoods_are_those_of_the_other_half(adapter):
    logits, truth = overconfident(200)
    found = adapter.calibrate(logits, truth)
    total = 0.0
    for own in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - own.start, None, 2)
        fitted = fa.Calibration.fit(logits[other], truth[other])
        mixed = fitted.scale * logits[own] + fitted.bias
        loss = nn.functional.binary_cross_entropy_with_logits(mixed, truth[own].float())
        total += float(loss) / 2
    assert found.after == pytest.approx(total, abs=1e-5)


def test_the_posterior_is_likelier_with_its_weights(adapter):
    logits, truth = overconfident()
    adapter.fit_prior(logits[:400].sigmoid(), truth[:400])
    images, evidence = logits[600:], {label: truth[600:, i].tolist() for i, label in
                                      enumerate(LABELS[:6])}  # fmt: skip

    def loss() -> float:
        after = adapter.refine(
            images, fa.Labels(evidence), strategy="posterior", pivots="input"
        ).after
        return float(
            nn.functional.binary_cross_entropy_with_logits(after[:, 6:], truth[600:, 6:].float())
        )

    before = loss()
    found = adapter.calibrate(logits[400:600], truth[400:600])
    assert found.posterior_after < found.posterior_before
    assert set(found.posterior) == {"joint", "latent", "scale", "bias"}
    assert loss() < before


def test_calibration_is_saved(tmp_path):
    adapter = fa.wrap(timm.create_model("test_resnet", num_classes=12), labels=LABELS)
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = adapter.calibrate(images, adapter.predict(images) > 0)
    again = fa.load(adapter.save(tmp_path / "calibrated"))
    assert again.defaults.calibration == {"output": {"scale": found.scale, "bias": found.bias}}


def test_what_is_wrong_is_said(adapter):
    with pytest.raises(fa.FeedbackAdapterError, match="one shape"):
        adapter.calibrate(torch.zeros(4, 12), torch.zeros(3, 12))
    for unknown in (-1.0, torch.nan, 255.0):
        with pytest.raises(fa.FeedbackAdapterError, match=r"in \[0, 1\]"):
            adapter.calibrate(torch.zeros(4, 12), torch.full((4, 12), unknown))
    truth = torch.eye(12)[:4]
    expected = adapter.calibrate(torch.zeros(4, 12), truth)
    assert adapter.calibrate(torch.zeros(4, 12), truth.numpy()) == expected
    with pytest.raises(fa.FeedbackAdapterError, match="give a tensor"):
        adapter.calibrate(torch.zeros(4, 12), "dog")
    classes = fa.wrap(nn.Identity(), labels=LABELS, kind="multiclass")
    for targets in (torch.zeros(4, 12), torch.tensor([0, 1, 2, 12]), torch.zeros(4)):
        with pytest.raises(fa.FeedbackAdapterError, match="numbers of"):
            classes.calibrate(torch.zeros(4, 12), targets)
    with pytest.raises(fa.FeedbackAdapterError, match=r"\['output'\], not 'other'"):
        classes.calibrate(torch.zeros(4, 12), torch.zeros(4, dtype=torch.int64), output="other")


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0, 3.0])
def test_the_temperature_of_classes_is_found(scale):
    """As good as the best of a fine grid, and near to what the classes were drawn with."""
    generator = torch.Generator().manual_seed(1)
    right = 2 * torch.randn(3000, 12, generator=generator)
    truth = torch.multinomial(right.softmax(1), 1, generator=generator)[:, 0]
    adapter = fa.wrap(nn.Identity(), labels=LABELS, kind="multiclass")
    found = adapter.calibrate(right / scale, truth)
    assert found.scale == pytest.approx(scale, rel=0.05)
    assert found.bias == 0
    assert adapter.defaults.calibration == {"output": {"scale": found.scale, "bias": 0.0}}

    def loss(s: float) -> float:
        return float(nn.functional.cross_entropy(s * right / scale, truth))

    grid = [loss(found.scale * (1 + step / 100)) for step in range(-20, 21)]
    assert loss(found.scale) <= min(grid) + 1e-5
    assert found.before == pytest.approx(loss(1.0), abs=1e-5)
    assert found.after == pytest.approx(loss(found.scale), abs=2e-3)


def test_classes_that_are_all_right_keep_a_finite_scale(tmp_path):
    """Which may be large; and it is saved."""
    model = timm.create_model("test_resnet", num_classes=12)
    adapter = fa.wrap(model, labels=LABELS, kind="multiclass")
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = adapter.calibrate(images, adapter.predict(images).argmax(1))
    assert 1 < found.scale < 1e6
    again = fa.load(adapter.save(tmp_path / "calibrated"))
    assert again.defaults.calibration == {"output": {"scale": found.scale, "bias": 0.0}}
