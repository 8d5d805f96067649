"""The other protocols by hand, and the files and tables that results go to."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import feedback_adapter as fa
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.methods import ALONE
from fa_evaluate.metrics import mean_average_precision, mean_of, ranked
from fa_evaluate.protocols.hierarchy import MASK, Hierarchy
from fa_evaluate.protocols.text import BAYES, TextNearby, others
from fa_evaluate.rows import Row, read_rows, write_rows
from fa_evaluate.tables import markdown
from feedback_adapter.errors import DataError, ModelError, OptionsError

FINE = ("beagle", "poodle", "tabby", "siamese")
GROUPS = {"dog": ("beagle", "poodle"), "cat": ("tabby", "siamese")}
STILL = {"steps": 0, "pivots": "0"}


def values(rows):
    return {(row.method, row.metric): row.value for row in rows}


@pytest.fixture
def classes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    output = fa.Output(FINE, "multiclass", hierarchy=GROUPS)
    images = torch.randn(30, 5)
    with torch.no_grad():
        fine = (model(images) + 2 * torch.randn(30, 4)).argmax(1)
    return fa.Adapter(model, {"output": output}), images, fine


def test_hierarchy_by_hand(classes):
    adapter, images, fine = classes
    moves = {"steps": 5, "step_size": 0.1, "pivots": "0"}
    rows = Hierarchy(batch=7).run(
        adapter, images, fine, {"still": STILL, "residual-reference": moves}, checkpoint="tiny"
    )
    found = values(rows)
    log_p = adapter.predict(images).log_softmax(1)
    group = torch.tensor([0, 0, 1, 1])
    inside = log_p.masked_fill(group != group[fine].unsqueeze(1), -torch.inf)
    assert found["unrefined", "accuracy"] == pytest.approx(
        100 * (log_p.argmax(1) == fine).double().mean().item()
    )
    assert found[MASK, "accuracy"] == pytest.approx(
        100 * (inside.argmax(1) == fine).double().mean().item()
    )
    own = inside.log_softmax(1).gather(1, fine.unsqueeze(1))
    assert found[MASK, "NLL"] == pytest.approx(-own.mean().item(), abs=1e-4)
    alone = found["still, network alone", "accuracy"]
    assert alone == found["unrefined", "accuracy"]  # no step, no change
    assert found["still", "NLL"] == pytest.approx(found[MASK, "NLL"])
    assert found["still", "images made worse"] == 0
    gain = "accuracy gain over the masked softmax"
    assert found["residual-reference", gain] == pytest.approx(
        found["residual-reference", "accuracy"] - found[MASK, "accuracy"]
    )
    assert {row.method for row in rows if row.baseline} == {
        "unrefined", MASK, "residual-reference", "residual-reference, network alone",
    }  # fmt: skip
    flat = fa.wrap(adapter.model, labels=FINE, kind="multiclass")
    with pytest.raises(ModelError, match="has a hierarchy"):
        Hierarchy().run(flat, images, fine, {})


@pytest.fixture
def words():
    labels = ("dog", "snow", "ball")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).eval()
    said = ["A dog", "A ball", "Snow", "A dog in the snow", "A dog with a ball"]
    captions = [[said[(i + j) % 5] for j in range(3)] for i in range(20)]
    return fa.wrap(model, labels=labels), torch.randn(20, 5), captions


def test_text_by_hand(words):
    adapter, images, captions = words
    rows = TextNearby((1, 2), draws=2, batch=6, samples=4).run(
        adapter, images, captions, {"still": STILL}
    )
    found = {(row.method, row.known, row.metric): row for row in rows}
    assert [text[0] for text in others(captions, 0, 2)] == ["A ball", "Snow"]
    assert [text[0] for text in others(captions, 1, 1)] == ["A dog"]
    plain, bayes, twice = [], [], []
    for left_out in (0, 1):
        truth = np.array(
            [[word in own[left_out].lower() for word in adapter.labels] for own in captions]
        )
        logits = adapter.predict(images)
        first, second = (fa.Text(text) for text in others(captions, left_out, 2))
        told = first.clamp(adapter.read(logits))
        both = second.clamp(told)["output"]  # a word said twice counts twice
        plain.append(mean_average_precision(logits.numpy(), truth))
        bayes.append(mean_average_precision(told["output"].numpy(), truth))
        twice.append(mean_average_precision(both.numpy(), truth))
    assert found["unrefined", 0, "mAP"].value == pytest.approx(np.mean(plain))
    assert found[BAYES, 1, "mAP"].value == pytest.approx(np.mean(bayes))
    assert found[BAYES, 2, "mAP"].value == pytest.approx(np.mean(twice))
    assert found["still" + ALONE, 2, "mAP gain"].value == pytest.approx(0)
    for amount in (1, 2):  # no step: the rule alone
        both = found["still", amount, "mAP"]
        assert both.value == pytest.approx(found[BAYES, amount, "mAP"].value)
        assert not both.baseline
    with pytest.raises(DataError, match="An image has 3 captions"):
        TextNearby((3,)).run(adapter, images, captions, {})
    with pytest.raises(OptionsError, match="at least 1"):
        TextNearby((0,))


def test_bootstrap_is_paired_and_fixed_by_the_seed():
    random = np.random.default_rng(0)
    base = random.random(50)
    better = base + 0.1 + 0.01 * random.random(50)
    bootstrap = Bootstrap(50, samples=300, seed=1)
    draws = [{"m": bootstrap(mean_of(better)), "gain": bootstrap(mean_of(better - base))}]
    score, gain = bootstrap.rows("c", "m", 100, draws)
    assert score.low < score.value < score.high
    assert score.value == pytest.approx(better.mean())
    error = better.std() / 50**0.5
    assert score.high - score.low == pytest.approx(2 * 1.96 * error, rel=0.25)
    assert 0.1 < gain.low < gain.high < 0.11
    again = Bootstrap(50, samples=300, seed=1)
    assert np.array_equal(again.counts, bootstrap.counts)
    two = [{"m": np.array([1.0])}, {"m": np.array([2.0])}]
    (row,) = Bootstrap(50, samples=0).rows("c", "m", 0, two)
    assert (row.value, row.sd, row.low, row.high) == (1.5, pytest.approx(0.5**0.5), 1.5, 1.5)


def test_intervals_of_precision_lie_around_it():
    # Few positives: a positive drawn twice ranks beside itself, so that resamples are too high.
    random = np.random.default_rng(0)
    truth = random.random((60, 20)) < 0.1
    bootstrap = Bootstrap(60, samples=200)
    found = bootstrap(ranked(random.random((60, 20)), truth))
    assert found[1:].mean() > found[0] + 2
    (row,) = bootstrap.rows("c", "m", 100, [{"mAP": found}])
    assert (row.low + row.high) / 2 == pytest.approx(row.value, abs=0.5)
    spread = np.percentile(found[1:], 97.5) - np.percentile(found[1:], 2.5)
    assert row.high - row.low == pytest.approx(spread)


def test_files_and_tables(tmp_path):
    rows = [
        Row("net", "unrefined", "weights", True, 0, "mAP", 30.0, 0.0, 28.0, 32.0, 9),
        Row("net", "residual", "weights", False, 50, "mAP", 33.0, 0.5, 31.0, 35.0, 9),
        Row("net", "residual", "weights", False, 50, "mAP gain", 3.0, 0.5, 2.0, 4.0, 9),
        Row("net", "residual", "weights", False, 50, "images made worse", 0.25, 0.0, 0.2, 0.3, 9),
    ]
    file = write_rows(tmp_path / "new" / "rows.json", rows, [0, 1], split="dev")
    assert read_rows(file) == rows
    content = json.loads(file.read_text())
    assert (content["seeds"], content["split"]) == ([0, 1], "dev")
    assert markdown(rows).splitlines() == [
        "**net**, 9 images",
        "",
        "| method | uses | known | mAP | mAP gain | images made worse |",
        "| --- | --- | --- | --- | --- | --- |",
        "| unrefined | weights |  | 30.00 |  |  |",
        "| residual | weights | 50% | 33.00 ± 0.50 | +3.00 ± 0.50 [+2.00, +4.00] | 25% |",
    ]


@pytest.mark.parametrize(
    "content", ["{}", '{"rows": [{"metric": "map"}]}', '{"rows": 5}', "[]", "x"]
)
def test_a_file_of_results_that_is_none(content, tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(content)
    with pytest.raises(DataError, match=r"rows\.json"):
        read_rows(file)
