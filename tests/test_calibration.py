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
    classes = fa.wrap(nn.Identity(), labels=LABELS, kind="multiclass")
    with pytest.raises(fa.FeedbackAdapterError, match="multilabel"):
        classes.calibrate(torch.zeros(4, 12), torch.zeros(4, 12))
