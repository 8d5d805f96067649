"""`Refinement.explain`: the numbers are right, sum up, and leave the model alone."""

import itertools
import math
import sys

import pytest
import torch

import feedback_adapter as fa
from feedback_adapter.explain import shapley
from feedback_adapter.testing import tiny_adapter, tiny_images, untouched

STEP = {
    "strategy": "residual", "solver": "gradient", "steps": 1, "step_size": 0.3, "unit": "absolute",
    "keep": "last", "patience": None,
}  # fmt: skip
STRATEGIES = ["residual", "layerwise", "newton", "clamp", "posterior"]


def by_name(why):
    return {row.evidence: row for row in why.contributions}


def linear(labels, kind="multilabel", bias=None):
    torch.manual_seed(3)
    model = torch.nn.Linear(5, len(labels)).double()
    if bias is not None:
        torch.nn.init.zeros_(model.weight)
        model.bias.data = torch.tensor(bias, dtype=torch.float64)
    return fa.wrap(model, labels=labels, kind=kind)


def with_prior(adapter):
    torch.manual_seed(0)
    targets = (torch.rand(200, 4) < 0.4).double()
    adapter.fit_prior(targets * 0.5 + 0.25, targets)
    return adapter


def test_one_step_in_a_linear_network_is_known_in_closed_form():
    """x moves by -0.3 sum_k (p_k - y_k) w_k, so fact k moves z_u by -0.3 (p_k - y_k) w_k . w_u."""
    adapter = linear(["dog", "snow", "ball", "hat"])
    x = torch.randn(2, 5, dtype=torch.float64)
    told = {"dog": 1, "snow": 0, "hat": 0.25}
    result = adapter.refine(x, fa.Labels(told), pivots="input", explainable=True, **STEP)
    weight, p = adapter.model.weight.detach(), adapter.predict(x)[1].sigmoid()
    why = result.explain("ball", image=1)
    rows = by_name(why)
    for name, label, value in [("dog", 0, 1.0), ("no snow", 1, 0.0), ("hat=0.25", 3, 0.25)]:
        expected = float(-0.3 * (p[label] - value) * (weight[label] @ weight[2]))
        assert rows[name].log_odds == pytest.approx(expected, abs=1e-6)
        assert rows[name].left_out == pytest.approx(expected, abs=1e-6)
        assert rows[name].error == 0
    assert why.exact
    assert why.refinements == 7
    assert why.before == pytest.approx(float(result.before[1, 2]), abs=1e-9)
    assert why.after == pytest.approx(float(result.after[1, 2]), abs=1e-9)


def test_facts_that_work_together_are_shared_out_as_by_hand():
    """Without a and b, c has p / (1 - q): log-odds log p_c - log(1 - p_c - q), q what is gone."""
    p = torch.tensor([0.5, 0.2, 0.1, 0.2], dtype=torch.float64)
    adapter = linear(["a", "b", "c", "d"], "multiclass", p.log().tolist())
    result = adapter.refine(
        torch.ones(1, 5, dtype=torch.float64), fa.Labels({"a": 0, "b": 0}),
        strategy="clamp", pivots="input", explainable=True,
    )  # fmt: skip

    def log_odds(gone):
        return math.log(0.1) - math.log(1 - 0.1 - gone)

    alone_a = log_odds(0.5) - log_odds(0)
    alone_b = log_odds(0.2) - log_odds(0)
    last_a, last_b = log_odds(0.7) - log_odds(0.2), log_odds(0.7) - log_odds(0.5)
    rows = by_name(result.explain("c"))
    assert rows["no a"].log_odds == pytest.approx((alone_a + last_a) / 2, abs=1e-5)
    assert rows["no b"].log_odds == pytest.approx((alone_b + last_b) / 2, abs=1e-5)
    assert rows["no a"].left_out == pytest.approx(last_a, abs=1e-5)
    moved = 0.1 / 0.3 - 0.1
    assert rows["no a"].probability + rows["no b"].probability == pytest.approx(moved, abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_does_nothing_gets_exactly_0_and_the_rest_sums_to_the_movement(strategy):
    adapter = with_prior(tiny_adapter())
    known = (
        fa.Labels([{"dog": 1, "snow": 0}, {"dog": 1}, None])
        & fa.Labels({"ball": 1}, confidence=0.0)
        & fa.Text("nothing of this is a label")
        & fa.Text([None, "a dog", "a ball"])
    )
    how = {} if strategy in ("clamp", "posterior") else {"pivots": "block"}
    result = adapter.refine(tiny_images(3), known, strategy=strategy, explainable=True, **how)
    for image, facts in enumerate([["dog", "no snow"], ["dog", "Text: a dog"]]):
        why = result.explain("cat", image=image)
        rows = by_name(why)
        nothing = ["ball", "Text: nothing of this is a label"]
        assert set(rows) == {*facts, *nothing}
        for name in nothing:
            assert (rows[name].log_odds, rows[name].probability, rows[name].left_out) == (0, 0, 0)
        moved = why.after - why.before
        assert sum(row.log_odds for row in why.contributions) == pytest.approx(moved, abs=1e-9)
        assert why.after == pytest.approx(float(result.after[image, 0]), abs=1e-4)
        before, after = (float(z[image, 0].sigmoid()) for z in (result.before, result.after))
        shares = sum(row.probability for row in why.contributions)
        assert shares == pytest.approx(after - before, abs=1e-4)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass", "map"])
def test_every_kind_of_output_with_labels_is_explained(kind):
    adapter = tiny_adapter(kind)
    known = fa.Labels({"dog": 1, "snow": 0})
    result = adapter.refine(tiny_images(2), known, pivots="stem", explainable=True)
    why = result.explain("cats", image=-1)
    before, after = (
        z.probabilities()["output"][1, 0].mean()  # of a map, over its pixels
        for z in (result.outputs_before, result.outputs_after)
    )
    assert (why.image, why.label) == (1, "cat")
    data = why.to_dict()
    assert data["before"]["probability"] == pytest.approx(float(before), abs=1e-5)
    assert data["after"]["probability"] == pytest.approx(float(after), abs=1e-5)
    assert sum(r["probability"] for r in data["contributions"]) == pytest.approx(
        float(after - before), abs=1e-5
    )


def test_each_image_is_explained_by_its_own_strategy():
    adapter = with_prior(tiny_adapter(second="multiclass"))
    known = fa.Labels([{"dog": 1, "snow": 0}, {"night": 1, "dog": 1}, {"night": 1}])
    result = adapter.refine(tiny_images(3), known, pivots="net.stem", explainable=True)
    assert len(set(result.strategies)) == 2
    for image in range(3):
        why = result.explain("cat", image=image)
        assert why.strategy == result.strategies[image]
        assert why.after == pytest.approx(float(result.after["output"][image, 0]), abs=1e-4)
    some = result.take(torch.tensor([2, 0])).explain("cat", image=1)
    assert some.contributions == result.explain("cat", image=0).contributions


class _TwoBranches(torch.nn.Module):
    """Two outputs that share nothing but the image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = torch.nn.Linear(5, 3), torch.nn.Linear(5, 2)
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x):
        return {"what": self.head(self.left(x)), "where": self.right(x)}


def test_a_fact_that_the_pivot_cannot_serve_is_only_held():
    specs = {
        "what": fa.Output(["cat", "dog"], select="what"),
        "where": fa.Output(["indoor", "snow"], select="where"),
    }
    adapter = fa.wrap(_TwoBranches(), outputs=specs)
    known = fa.Labels({"dog": 1, "snow": 1})
    result = adapter.refine(torch.ones(1, 5), known, pivots="left", explainable=True)
    with pytest.raises(fa.FeedbackAdapterError, match="No known output depends on left"):
        adapter.refine(torch.ones(1, 5), fa.Labels({"snow": 1}), pivots="left")
    rows = by_name(result.explain("cat"))
    assert rows["snow"].log_odds == 0
    assert rows["dog"].log_odds != 0


def test_tensors_name_their_labels():
    adapter = tiny_adapter()
    targets = torch.tensor([[1, torch.nan, 0, torch.nan]])
    known = fa.Labels.from_tensors(targets)
    result = adapter.refine(tiny_images(1), known, pivots="stem", explainable=True)
    assert set(by_name(result.explain("ball"))) == {"cat", "no snow"}


def test_labels_that_may_be_wrong_are_explained_too():
    adapter = tiny_adapter()
    known = fa.Labels({"dog": 1, "snow": 0}, wrong=0.2)
    result = adapter.refine(tiny_images(1), known, pivots="stem", explainable=True)
    why = result.explain("dog")
    assert by_name(why)["dog"].log_odds > 0


GAME = torch.Generator().manual_seed(1)
WORTH = {
    frozenset(some): torch.randn(2, generator=GAME, dtype=torch.float64)
    for size in range(6)
    for some in itertools.combinations(range(5), size)
}


def test_exact_values_are_those_of_captum():
    from captum.attr import ShapleyValues

    def forward(chosen):
        return torch.stack([WORTH[frozenset(row.nonzero()[:, 0].tolist())][0] for row in chosen])

    reference = ShapleyValues(forward).attribute(torch.ones(1, 5), baselines=0)[0]
    values = shapley.exact(WORTH.__getitem__, 5)
    assert values.shape == (5, 2)
    torch.testing.assert_close(values[:, 0].float(), reference, rtol=0, atol=1e-5)
    torch.testing.assert_close(values.sum(0), WORTH[frozenset(range(5))] - WORTH[frozenset()])


def test_sampled_values_are_within_their_errors():
    values, errors = shapley.sampled(WORTH.__getitem__, 5, 400)
    off = (values - shapley.exact(WORTH.__getitem__, 5)) / errors
    assert float(off.abs().max()) < 4
    assert 0.4 < float(off.square().mean()) < 2.5
    torch.testing.assert_close(values.sum(0), WORTH[frozenset(range(5))] - WORTH[frozenset()])


def test_more_than_ten_facts_are_estimated_with_an_error():
    labels = [f"label {i}" for i in range(13)]
    adapter = linear(labels)
    x = torch.randn(1, 5, dtype=torch.float64)
    told = {label: i % 2 for i, label in enumerate(labels[1:])}
    result = adapter.refine(x, fa.Labels(told), pivots="input", explainable=True, steps=3,
                            strategy="residual", step_size=0.1)  # fmt: skip
    why = result.explain("label 0", orders=6)
    assert not why.exact
    assert "± " in why.table()
    moved = why.after - why.before
    assert sum(row.log_odds for row in why.contributions) == pytest.approx(moved, abs=1e-9)
    again = result.explain("label 0", orders=6)
    assert again.contributions == why.contributions  # the same orders every time
    with pytest.raises(fa.FeedbackAdapterError, match="orders=1 must be"):
        result.explain("label 0", orders=1)


def test_the_model_is_bit_for_bit_what_it_was():
    adapter = tiny_adapter()
    adapter.model.train()
    known = fa.Labels({"dog": 1, "snow": 0})
    result = adapter.refine(tiny_images(2), known, pivots="stem", explainable=True)
    with untouched(adapter.model):
        result.explain("cat", image=1)


def test_an_ordinary_result_keeps_nothing_and_says_how_to_ask():
    adapter = tiny_adapter()
    result = adapter.refine(tiny_images(2), fa.Labels({"dog": 1}), pivots="stem")
    assert result.asked is None
    with pytest.raises(fa.FeedbackAdapterError, match="explainable=True"):
        result.explain("cat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "cot"}, "no label 'cot'.*Did you mean 'cat'"),
        ({"label": "dog"}, "'dog' is told of image 0"),
        ({"label": "cat", "image": 2}, "no image 2: the result has 2"),
        ({"label": "cat", "image": None}, "no image None"),
        ({"label": "cat", "image": 1}, "Nothing is known of image 1"),
        ({"label": "cat", "output": "scenes"}, "no output 'scenes'.*Did you mean 'scene'"),
        ({"label": "cat", "output": "scene"}, "no label 'cat'"),
    ],
)
def test_mistakes_are_named(arguments, message):
    adapter = tiny_adapter(second="multiclass")
    known = fa.Labels([{"dog": 1}, None])
    result = adapter.refine(tiny_images(2), known, pivots="net.stem", explainable=True)
    with pytest.raises(fa.FeedbackAdapterError, match=message):
        result.explain(**arguments)


def test_a_model_or_images_that_have_changed_are_refused():
    adapter, x = tiny_adapter(), tiny_images(2)
    result = adapter.refine(x, fa.Labels({"dog": 1}), pivots="stem", explainable=True)
    x += 1
    with pytest.raises(fa.FeedbackAdapterError, match="have changed since"):
        result.explain("cat")


def test_missing_captum_is_named(monkeypatch):
    adapter = tiny_adapter()
    result = adapter.refine(tiny_images(1), fa.Labels({"dog": 1}), pivots="stem", explainable=True)
    monkeypatch.setitem(sys.modules, "captum", None)  # as Python has it where there is none
    with pytest.raises(ImportError, match=r"feedback-adapter\[explain\]"):
        result.explain("cat")


class _Whole(fa.Evidence):
    """A plugin's evidence that knows nothing of facts."""

    def loss(self, outputs):
        return -outputs["output"][:, 1]

    def clamp(self, outputs):
        return outputs

    def known(self, outputs):
        return {name: torch.zeros_like(value, dtype=torch.bool) for name, value in outputs.items()}

    def take(self, rows):
        return self


def test_a_plugins_evidence_is_one_fact():
    adapter = tiny_adapter()
    known = _Whole() & fa.Labels({"snow": 0})
    result = adapter.refine(
        tiny_images(1), known, pivots="stem", explainable=True, strategy="residual"
    )
    assert set(by_name(result.explain("cat"))) == {"_Whole", "no snow"}
