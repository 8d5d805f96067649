"""Labels that are told wrong: Bayes' rule, estimates, and what becomes of certain facts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import feedback_adapter as fa
from feedback_adapter.evidence.mistakes import believed, estimate, estimate_each

LABELS = tuple(f"label {i}" for i in range(40))
SHARES = st.floats(0.001, 0.9)


def told_by_a_careless_person(share: float, images: int = 64, seed: int = 0):
    """Logits that are calibrated, the truth, and the truth with a share of it turned round."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.5 * torch.randn(images, len(LABELS), generator=generator) - 2
    truth = torch.rand(logits.shape, generator=generator) < logits.sigmoid()
    flipped = torch.rand(logits.shape, generator=generator) < share
    return logits, truth, truth ^ flipped


def itself(labels: tuple[str, ...] = LABELS) -> fa.Adapter:
    """A model whose logits are its input."""
    return fa.wrap(nn.Identity(), labels=labels)


@given(st.floats(-8, 8), SHARES, SHARES, st.booleans())
def test_believed_is_bayes_rule(opinion, missed, invented, told):
    p = 1 / (1 + math.exp(-opinion))
    if_present, if_absent = (1 - missed, invented) if told else (missed, 1 - invented)
    expected = p * if_present / (p * if_present + (1 - p) * if_absent)
    exact = [torch.tensor(v, dtype=torch.float64) for v in (opinion, told, missed, invented)]
    found = believed(*exact)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_what_is_never_wrong_is_believed():
    never = torch.tensor(0.0)
    found = believed(torch.tensor([-30.0, 30.0]), torch.tensor([1.0, 0.0]), never, never)
    assert found.tolist() == pytest.approx([1, 0], abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2])
def test_the_share_of_wrong_labels_is_found_in_a_batch_of_64(share):
    logits, _, said = told_by_a_careless_person(share)
    wrong = fa.estimate_wrong(
        itself(), logits, fa.Labels.from_tensors(said, torch.ones(len(LABELS), dtype=torch.bool))
    )
    assert wrong.missed == wrong.invented == pytest.approx(share, abs=0.01)


def test_missed_and_invented_labels_are_told_apart():
    logits, truth, _ = told_by_a_careless_person(0.0, images=600)
    said = truth & (torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) > 0.3)
    known = torch.ones_like(said)
    wrong = estimate(logits, said.float(), known, apart=True)
    assert wrong.missed == pytest.approx(0.3, abs=0.05)
    assert wrong.invented < 0.01
    together = estimate(logits, said.float(), known)
    assert together.missed < 0.15


def test_each_image_has_its_own_share():
    logits, truth, said = told_by_a_careless_person(0.3, images=400)
    half = torch.arange(400)[:, None] < 200
    told, known = torch.where(half, truth, said).float(), torch.ones_like(truth)
    share = estimate_each(logits, told, known)
    assert share[:200].mean() < 0.01
    assert share[200:].mean() > 0.05  # a few labels say less than the prior
    assert torch.equal(share[3:5], estimate_each(logits[3:5], told[3:5], known[3:5]))


def test_certain_facts_hold_and_nothing_is_doubted():
    result = itself().refine(torch.full((2, 40), -9.0), fa.Labels({"label 3": 1}), pivots="input")
    assert result.doubts == {}
    assert result.doubted == []


def test_an_unlikely_label_is_doubted_and_counts_for_less():
    images = torch.full((2, 40), -6.0)
    said = dict.fromkeys(LABELS[1:], 0) | {"label 0": 1}
    sure, doubtful = (
        itself().refine(images, fa.Labels(said, wrong=wrong), pivots="input") for wrong in (0, 0.05)
    )
    probability = believed(*(torch.tensor(v) for v in (-6.0, 1.0, 0.05, 0.05)))
    assert [(doubt.image, doubt.label, doubt.told) for doubt in doubtful.doubted] == [
        (0, "label 0", True), (1, "label 0", True),
    ]  # fmt: skip
    assert doubtful.doubted[0].probability == pytest.approx(1 - float(probability), abs=1e-5)
    assert doubtful.after[0, 0] < sure.after[0, 0] - 3


def test_doubts_are_sorted_and_follow_their_images():
    images = torch.full((3, 40), -6.0)
    images[1, 0], images[2, 0] = -9.0, 5.0
    evidence = fa.Labels({"label 0": 1, "label 1": 0}, wrong=0.05)
    result = itself().refine(images, evidence, pivots="input")
    assert [doubt.image for doubt in result.doubted] == [1, 0]
    swapped = fa.Refinement.cat([result.take(torch.tensor([2, 1])), result])
    assert [doubt.image for doubt in swapped.doubted] == [1, 3, 2]


@pytest.mark.parametrize("image", [0, 63])
def test_an_image_does_not_depend_on_its_batch_mates(image):
    logits, _, said = told_by_a_careless_person(0.1)
    known = torch.ones(len(LABELS), dtype=torch.bool)
    whole = itself().refine(logits, fa.Labels.from_tensors(said, known, wrong=None), pivots="input")
    rows = slice(image, image + 1)
    alone = itself().refine(
        logits[rows], fa.Labels.from_tensors(said[rows], known, wrong=None), pivots="input"
    )
    torch.testing.assert_close(whole.after[rows], alone.after, atol=1e-5, rtol=0)


def test_mistakes_cost_less_where_they_are_expected():
    """With a share of wrong labels, statistics of labels that go together still help."""
    generator = torch.Generator().manual_seed(0)
    twins = torch.rand(600, 20, generator=generator) < 0.3
    truth = twins.repeat(1, 2)  # label i and label i + 20 are the same
    noise = 1.5 * torch.randn(truth.shape, generator=generator)
    logits = 2 * truth.float() - 1.5 + noise
    adapter = itself()
    adapter.fit_prior(logits[:300].sigmoid(), truth[:300])
    known = torch.arange(40) < 20
    said = truth ^ (torch.rand(truth.shape, generator=generator) < 0.1)

    def loss(wrong: float | None) -> float:
        evidence = fa.Labels.from_tensors(said[300:], known, wrong=wrong)
        after = adapter.refine(logits[300:], evidence, strategy="posterior", pivots="input").after
        after = after[:, ~known]
        return float(
            nn.functional.binary_cross_entropy_with_logits(after, truth[300:, ~known].float())
        )

    assert loss(None) < loss(0.0) - 0.015


@pytest.mark.parametrize("share", [-0.1, 1.0, "often", float("nan")])
def test_shares_are_checked(share):
    with pytest.raises(fa.FeedbackAdapterError, match="missed"):
        fa.Labels({"a": 1}, wrong=share)


def test_classes_that_exclude_each_other_are_refused():
    made = fa.wrap(nn.Identity(), labels=["cat", "dog"], kind="multiclass")
    with pytest.raises(fa.FeedbackAdapterError, match="confidence="):
        made.refine(torch.zeros(1, 2), fa.Labels({"cat": 1}, wrong=0.1), pivots="input")


def test_mistakes_are_estimated_in_labels_only():
    with pytest.raises(fa.FeedbackAdapterError, match="pass Labels"):
        fa.estimate_wrong(itself(), torch.zeros(2, 40), fa.Text("a label"))
