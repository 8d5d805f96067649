"""The partial-labels protocol: its numbers by hand, its draws fixed, the model's answers plain."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

import feedback_adapter as fa
from fa_evaluate.metrics import (
    calibration,
    mean_average_precision,
    mean_of,
    negative_log_likelihood,
    ranked,
)
from fa_evaluate.protocols.partial_labels import Method, PartialLabels
from feedback_adapter.errors import DataError, OptionsError

LABELS = tuple("abcdefghij")


class Mixed(nn.Module):
    """Logits that share causes: knowing some labels tells of others."""

    def __init__(self) -> None:
        super().__init__()
        self.causes, self.head = nn.Linear(6, 3), nn.Linear(3, len(LABELS))
        with torch.no_grad():
            self.head.weight.add_(2 * torch.eye(3).repeat(4, 1)[: len(LABELS)])

    def forward(self, x):
        return self.head(2 * self.causes(x))


@pytest.fixture
def data() -> tuple[fa.Adapter, torch.Tensor, np.ndarray]:
    """A model, noisy images, and what it would say of the images without the noise."""
    model = Mixed().eval()
    images = torch.randn(40, 6)
    with torch.no_grad():
        truth = (model(images) > 0).numpy()
    truth[:, 7] = False  # a label that no image has
    return fa.wrap(model, labels=LABELS), images + torch.randn(40, 6), truth


def test_halves_are_disjoint_complete_and_fixed_by_the_seed():
    may, scored = PartialLabels(seed=3).halves(11)
    assert (len(may), len(scored)) == (5, 6)
    assert sorted([*may, *scored]) == list(range(11))
    again = PartialLabels(seed=3, known=[1], draws=9).halves(11)
    assert all(np.array_equal(a, b) for a, b in zip((may, scored), again, strict=True))
    assert not np.array_equal(may, PartialLabels(seed=4).halves(11)[0])


@pytest.mark.parametrize("share", [0, 20, 50, 70, 100])
def test_draws(share):
    protocol = PartialLabels(draws=4, seed=1)
    may, scored = protocol.halves(40)
    masks = list(protocol.masks(40, share))
    assert len(masks) == (1 if share in (0, 100) else 4)
    for mask in masks:
        assert mask.sum() == round(20 * share / 100)
        assert not mask[scored].any()
        assert set(np.flatnonzero(mask)) <= set(may)
    if len(masks) > 1:
        assert any(not np.array_equal(masks[0], mask) for mask in masks[1:])
    for first, second in zip(masks, protocol.masks(40, share), strict=True):
        assert np.array_equal(first, second)


def test_mean_average_precision_by_hand():
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.7, 0.5], [0.1, 0.6, 0.5], [0.3, 0.2, 0.5]])
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    # first label: positives are ranked 1 and 4; second: 1; the third has none and doesn't count
    assert mean_average_precision(scores, truth) == pytest.approx(100 * ((1 + 2 / 4) / 2 + 1) / 2)
    with pytest.raises(DataError, match="No label has a positive image"):
        mean_average_precision(scores, np.zeros_like(truth))


def test_negative_log_likelihood_by_hand():
    p, truth = np.array([[0.9, 0.2], [1.0, 0.0]]), np.array([[True, True], [True, False]])
    expected = [[-np.log(0.9), -np.log(0.2)], [1e-7, 1e-7]]
    np.testing.assert_allclose(negative_log_likelihood(p, truth), expected, rtol=1e-6)


def found(rows):
    """Value of each row, by method, amount and metric."""
    return {(row.method, row.known, row.metric): row.value for row in rows}


def test_rows_by_hand(data):
    """Every number of a row, from the model's own answers and sklearn."""
    adapter, images, truth = data
    protocol = PartialLabels(known=[0, 40, 100], draws=3, seed=2, batch=16)
    arguments = {"strategy": "residual", "pivots": "causes", "steps": 5, "step_size": 0.2}
    methods = {"mine": arguments, "sure": {**arguments, "wrong": 0.0}}
    rows = protocol.run(adapter, images, truth, methods, checkpoint="tiny")
    value = found(rows)
    assert {(method, known) for method, known, _ in value} == {
        ("unrefined", 0), ("mine", 40), ("mine", 100), ("sure", 40), ("sure", 100),
    }  # fmt: skip
    _, scored = protocol.halves(10)
    there = [i for i in scored if truth[:, i].any()]
    assert 7 not in there

    def measured(p: np.ndarray) -> tuple[float, np.ndarray]:
        each = [average_precision_score(truth[:, i], p[:, i]) for i in there]
        likely = np.where(truth, p, 1 - p)[:, scored].astype(np.float64)
        return 100 * float(np.mean(each)), -np.log(likely).mean(1)

    base_map, base_nll = measured(adapter.predict(images).sigmoid().numpy())
    assert value["unrefined", 0, "mAP"] == pytest.approx(base_map, abs=1e-4)
    assert value["unrefined", 0, "NLL"] == pytest.approx(base_nll.mean(), abs=1e-5)
    assert value["unrefined", 0, "ms per image"] > 0
    for (name, wrong), share in itertools.product([("mine", None), ("sure", 0.0)], [40, 100]):
        maps, losses = [], []
        for mask in protocol.masks(10, share):
            values = {LABELS[i]: truth[:, i].tolist() for i in np.flatnonzero(mask)}
            told = fa.Labels(values, wrong=wrong)
            refined = adapter.refine(images, told, **arguments).after.sigmoid().numpy()
            one, loss = measured(refined)
            maps.append(one)
            losses.append(loss)
        own = {row.metric: row for row in rows if (row.method, row.known) == (name, share)}
        assert own["mAP"].value == pytest.approx(np.mean(maps), abs=1e-3)
        spread = np.std(maps, ddof=1) if len(maps) > 1 else 0
        assert own["mAP"].sd == pytest.approx(spread, abs=1e-3)
        assert own["NLL"].value == pytest.approx(np.mean(losses), abs=1e-4)
        worse = np.mean(np.stack(losses) > base_nll)
        assert own["images made worse"].value == pytest.approx(worse, abs=0.03)
        gain = own["mAP gain"]
        assert gain.value == pytest.approx(own["mAP"].value - base_map, abs=1e-4)
        assert gain.low < gain.value < gain.high
        assert gain.high - gain.low < own["mAP"].high - own["mAP"].low  # paired: less noise
        assert (gain.checkpoint, gain.uses, gain.baseline, gain.images) == (
            "tiny",
            "weights",
            False,
            40,
        )
    assert value["mine", 100, "mAP gain"] > 0  # what is known does help here
    assert value["mine", 100, "NLL"] < value["unrefined", 0, "NLL"]


def test_strategies_are_measured_side_by_side(data):
    adapter, images, truth = data
    notes = []
    rows = PartialLabels(known=[50, 100], draws=2).run(
        adapter, images, truth,
        {
            "still": {"steps": 0, "pivots": "causes"},
            "layerwise-reference": {
                "strategy": "layerwise", "pivots": ["causes", "input"], "steps": 2
            },
        },
        progress=notes.append,
    )  # fmt: skip
    value = found(rows)
    for share in (50, 100):  # no step: the plain model
        assert value["still", share, "mAP gain"] == pytest.approx(0)
        assert value["still", share, "NLL"] == pytest.approx(value["unrefined", 0, "NLL"])
        assert value["still", share, "images made worse"] == 0
    assert value["layerwise-reference", 100, "NLL"] != value["unrefined", 0, "NLL"]
    assert {row.method for row in rows if row.baseline} == {"unrefined", "layerwise-reference"}
    assert len(notes) == 1 + 2 * (2 + 1)
    assert notes[1] == "images 1 to 40 of 40, still, 50% known, draw 1"


def test_worse_is_worse_than_the_calibrated_model(data):
    """Being less sure makes many images likelier; that isn't counted for or against a method."""
    adapter, images, truth = data
    own = {"output": {"scale": 0.5, "bias": -0.3}}
    defaults = dataclasses.replace(adapter.defaults, calibration=own)
    adapter = fa.Adapter(adapter.model, adapter.outputs, defaults=defaults)
    protocol = PartialLabels(known=[100], samples=0)
    methods = {"still": {"strategy": "residual", "steps": 0, "pivots": "causes"}}
    value = found(protocol.run(adapter, images, truth, methods))
    _, scored = protocol.halves(10)
    logits, there = adapter.predict(images)[:, scored], torch.from_numpy(truth[:, scored]).float()
    plain, fair = (
        torch.nn.functional.binary_cross_entropy_with_logits(z, there, reduction="none").mean(1)
        for z in (logits, 0.5 * logits - 0.3)
    )
    share = float((plain > fair + 1e-9).float().mean())
    assert 0 < share < 1
    assert value["unrefined", 0, "images made worse"] == pytest.approx(share)
    assert value["still", 100, "images made worse"] == pytest.approx(share)
    assert value["unrefined, calibrated", 0, "images made worse"] == 0
    assert value["unrefined, calibrated", 0, "NLL"] == pytest.approx(float(fair.mean()), abs=1e-5)
    assert value["unrefined, calibrated", 0, "mAP gain"] == pytest.approx(0, abs=1e-4)


def test_splits_and_wrong_evidence(data):
    adapter, images, truth = data
    protocol = PartialLabels(known=[100], splits=3, flip=[0, 100], samples=5)
    assert not np.array_equal(protocol.halves(10, 1)[0], protocol.halves(10, 0)[0])
    assert 0.1 < (protocol.wrong(truth, 20) ^ truth).mean() < 0.3
    rows = protocol.run(adapter, images, truth, {"mine": {"pivots": "causes", "step_size": 0.1}})
    value = found(rows)
    right, none = value["mine", 100, "mAP"], value["mine", 100, "mAP, 0% wrong"]
    assert right == pytest.approx(none)
    assert value["mine", 100, "mAP, 100% wrong"] < right
    (row,) = [row for row in rows if (row.method, row.metric) == ("mine", "mAP")]
    assert row.sd > 0


def test_methods_of_any_kind_and_a_baseline():
    random = np.random.default_rng(0)
    truth = random.random((50, 8)) < 0.4
    unrefined = (0.5 * truth + random.random((50, 8))) / 1.5
    seen = []

    def given(said, mask, unknown):
        seen.append((said.copy(), mask.copy()))
        return unrefined[:, unknown]

    def right(said, mask, unknown):
        return np.where(truth, 0.9, 0.1)[:, unknown]

    methods = [Method("linear", given, "statistics", baseline=True), Method("ours", right)]
    protocol = PartialLabels(known=[50, 100], draws=2, splits=2)
    rows = protocol.compare(methods, unrefined, truth, baseline="linear")
    value = found(rows)
    assert value["ours", 100, "mAP"] == 100
    for share in (50, 100):
        assert value["linear", share, "mAP gain"] == 0  # it is the plain model
        assert value["ours", share, "mAP gain over linear"] == pytest.approx(
            value["ours", share, "mAP gain"]
        )
    assert not any(row.metric == "mAP gain over linear" and row.baseline for row in rows)
    assert [int(mask.sum()) for _, mask in seen] == [2, 2, 2, 2, 4, 4]
    assert all(np.array_equal(said, truth) for said, _ in seen)


def test_calibration_by_hand():
    p = np.array([[0.05, 0.95], [0.05, 0.95]])
    truth = np.array([[False, True], [True, True]])
    # two bins: |0.05 - 0.5| and |0.95 - 1|, half of the predictions in each
    assert calibration(p, truth, bins=10)(None) == pytest.approx((0.45 + 0.05) / 2)
    assert calibration(p, truth, bins=10)(np.array([2, 0])) == pytest.approx(0.05)


def test_a_resample_is_the_data_set_with_repeats():
    random = np.random.default_rng(0)
    scores, truth = random.random((30, 4)).round(1), random.random((30, 4)) < 0.3
    counts = random.multinomial(30, np.full(30, 1 / 30))
    rows = np.repeat(np.arange(30), counts)
    each = [average_precision_score(truth[rows, i], scores[rows, i]) for i in range(4)]
    assert ranked(scores, truth)(counts) == pytest.approx(100 * np.mean(each))
    assert mean_of(scores[:, 0])(counts) == pytest.approx(scores[rows, 0].mean())


def test_mistakes(data):
    adapter, images, truth = data
    with pytest.raises(OptionsError, match="each must be 0 to 100 percent"):
        PartialLabels(known=[0, 101])
    with pytest.raises(OptionsError, match="each must be at least 1"):
        PartialLabels(draws=0)
    with pytest.raises(DataError, match=r"\(40, 9\), but 40 images and 10 labels need \(40, 10\)"):
        PartialLabels().run(adapter, images, truth[:, :9], {})
