"""Labels as evidence: every number by hand, every mistake by name."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.labels import parse_labels
from feedback_adapter.outputs import Outputs
from feedback_adapter.testing import check_evidence, tiny_outputs

NAMES = ("dog", "cat", "snow")
MANY, ONE = fa.Output(NAMES), fa.Output(NAMES, "multiclass")


def outputs(logits, spec: fa.Output = MANY) -> Outputs:
    return Outputs({"output": torch.as_tensor(logits, dtype=torch.float64)}, {"output": spec})


def of(p, spec: fa.Output = MANY) -> Outputs:
    """Outputs of a model that says probabilities `p`."""
    p = torch.tensor(p, dtype=torch.float64)
    return outputs(p.log() if spec is ONE else p.logit(), spec)


def ln(*values: float) -> list[float]:
    return pytest.approx([-math.log(value) for value in values], abs=1e-7)


# ---- the loss, in nats ----


def test_multilabel_loss():
    said = of([[0.9, 0.2, 0.5], [0.4, 0.1, 0.7]])
    assert fa.Labels({"dog": 1}).loss(said).tolist() == ln(0.9, 0.4)
    assert fa.Labels({"cat": 0}).loss(said).tolist() == ln(0.8, 0.9)
    both = fa.Labels({"dog": True, "cat": False})
    assert both.loss(said).tolist() == ln(0.9 * 0.8, 0.4 * 0.9)  # summed, not averaged
    each = fa.Labels({"dog": [1, None], "snow": [None, 0]})
    assert each.loss(said).tolist() == ln(0.9, 0.3)


def test_multiclass_loss():
    said = of([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], ONE)
    assert fa.Labels({"dog": 1}).loss(said).tolist() == ln(0.7, 0.1)  # the cross-entropy
    assert fa.Labels({"cat": 0}).loss(said).tolist() == ln(0.8, 0.4)
    not_either = fa.Labels({"cat": 0, "snow": 0})
    assert not_either.loss(said).tolist() == ln(0.8 * 0.9, 0.4 * 0.7)


@pytest.mark.parametrize("spec", [MANY, ONE])
def test_soft_loss_and_confidence(spec):
    said = of([[0.7, 0.2, 0.1]], spec)
    soft = -0.8 * math.log(0.7) - 0.2 * math.log(0.3)
    assert float(fa.Labels({"dog": 0.8}).loss(said)) == pytest.approx(soft, abs=1e-7)
    half = fa.Labels({"dog": 0.8, "cat": 0}, confidence={"cat": 0.5})
    assert float(half.loss(said)) == pytest.approx(soft - 0.5 * math.log(0.8), abs=1e-7)
    third = fa.Labels({"dog": 0.8, "cat": 0}, confidence=1 / 3)
    assert float(third.loss(said)) == pytest.approx((soft - math.log(0.8)) / 3, abs=1e-7)
    none = fa.Labels({"dog": 1}, confidence=0)
    assert none.loss(said).tolist() == [0]
    assert not none.known(said)["output"].any()


def test_several_outputs():
    logits = {
        "tags": torch.tensor([[0.3, 0.6]]).double().logit(),
        "scene": torch.tensor([[0.2, 0.8]]).double().log(),
    }
    specs = {
        "tags": fa.Output(("dog", "beach")),
        "scene": fa.Output(("beach", "city"), "multiclass"),
    }
    said = Outputs(logits, specs)
    assert fa.Labels({"dog": 1, "city": 1}).loss(said).tolist() == ln(0.3 * 0.8)
    assert fa.Labels({"beach": 1}, output="scene").loss(said).tolist() == ln(0.2)
    assert fa.Labels({"beach": 1}, output="tags").loss(said).tolist() == ln(0.6)
    known = fa.Labels({"dog": 1, "city": 0}).known(said)
    assert known["tags"].tolist() == [[True, False]]
    assert known["scene"].tolist() == [[False, True]]
    untold = fa.Labels({"dog": 1}).clamp(said)
    assert torch.equal(untold["scene"], said["scene"])


@pytest.mark.parametrize("logit", [-200.0, 200.0])
@pytest.mark.parametrize("spec", [MANY, ONE])
def test_loss_and_gradient_stay_finite(spec, logit):
    for dtype in (torch.float32, torch.float64):
        leaf = torch.tensor([[logit, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        said = Outputs({"output": leaf}, {"output": spec})
        for value in (0, 0.3, 1):
            loss = fa.Labels({"dog": value}).loss(said)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            assert loss.isfinite().all()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_the_protocol_and_the_gradient(kind):
    """`check_evidence`: gradcheck in float64, take() consistent, & adds, nothing in place."""
    plain = fa.Labels([{"cat": 1}, None, {"dog": 0, "snow": 0.25}, {}])
    soft = fa.Labels({"cat": [0.3, None, 0.4, 0.0], "dog": 0.5}, confidence={"cat": 0.5})
    said = tiny_outputs(kind=kind)
    check_evidence(plain, said)
    check_evidence(soft, said)
    check_evidence(plain & fa.Labels({"ball": [0, None, 0, None]}), said)


# ---- forms that say the same ----


def test_forms_that_say_the_same():
    said = outputs(torch.randn(3, 3))
    by_label = fa.Labels({"dog": [1, None, 0.5], "cat": [None, None, 0]})
    by_image = fa.Labels([{"dog": 1}, None, {"dog": 0.5, "cat": 0}])
    targets = torch.tensor([[1, 9, 9], [9, 9, 9], [0.5, 0, 9]])
    from_tensors = fa.Labels.from_tensors(targets, targets < 9)
    arrays = fa.Labels({"dog": np.array([1.0]).repeat(3)})
    for other in (by_image, from_tensors):
        assert torch.equal(other.loss(said), by_label.loss(said))
        assert torch.equal(other.clamp(said)["output"], by_label.clamp(said)["output"])
        assert torch.equal(other.known(said)["output"], by_label.known(said)["output"])
        some = torch.tensor([2, 0])
        part = outputs(said["output"][some])
        assert torch.equal(other.take(some).loss(part), by_label.loss(said)[some])
    for same in (torch.ones(3), [True] * 3, (1, 1, 1), 1, True, np.float32(1)):
        assert torch.equal(fa.Labels({"dog": same}).loss(said), arrays.loss(said))
    everywhere = fa.Labels.from_tensors(
        targets[:1].expand(3, 3), torch.tensor([True, False, False])
    )
    assert torch.equal(everywhere.loss(said), arrays.loss(said))


def test_and_adds():
    said = outputs(torch.randn(2, 3))
    dog, cat, snow = fa.Labels({"dog": 1}), fa.Labels({"cat": [0, None]}), fa.Labels({"snow": 0.5})
    both = dog & cat & snow
    assert len(both.parts) == 3
    expected = dog.loss(said) + cat.loss(said) + snow.loss(said)
    torch.testing.assert_close(both.loss(said), expected)
    torch.testing.assert_close(both.bind(said.specs, 2).loss(said), expected)
    assert both.known(said)["output"].tolist() == [[True] * 3, [True, False, True]]
    clamped = both.clamp(said).probabilities()["output"]
    one = fa.Labels([{"dog": 1, "cat": 0, "snow": 0.5}, {"dog": 1, "snow": 0.5}])
    torch.testing.assert_close(clamped, one.clamp(said).probabilities()["output"])
    assert repr(dog & cat) == "Labels({'dog': 1.0}) & Labels({'cat': [0.0, None]})"
    with pytest.raises(TypeError):
        dog & {"cat": 1}
    again = dog & dog  # said twice is no contradiction, and counts twice
    torch.testing.assert_close(again.bind(said.specs, 2).loss(said), 2 * dog.loss(said))


def test_command_line():
    assert parse_labels("dog, -snow,beach=0.8").values == {"dog": 1.0, "snow": 0.0, "beach": 0.8}
    assert parse_labels("dog,dog").values == {"dog": 1.0}
    with pytest.raises(EvidenceError, match=r"'dog' is said to be both 1.0 and 0.0"):
        parse_labels("dog,-dog")
    with pytest.raises(EvidenceError, match="'much' in 'dog=much' isn't a number"):
        parse_labels("dog=much")
    with pytest.raises(EvidenceError, match=r"'1.5' in 'dog=1.5' isn't a number"):
        parse_labels("dog=1.5")


# ---- the clamp ----

LOGITS = st.lists(st.floats(-30, 30), min_size=5, max_size=5)
VALUES = st.lists(st.sampled_from([None, 0.0, 1.0]), min_size=5, max_size=5)
FIVE = ("a", "b", "c", "d", "e")


@given(LOGITS, st.lists(st.none() | st.floats(0, 1), min_size=5, max_size=5))
def test_multilabel_clamp_fixes_the_known_alone(logits, values):
    said = Outputs({"output": torch.tensor([logits]).double()}, {"output": fa.Output(FIVE)})
    clamped = fa.Labels(dict(zip(FIVE, values, strict=True))).clamp(said)
    for i, value in enumerate(values):
        if value is None:
            assert clamped["output"][0, i] == said["output"][0, i]
        else:
            p = clamped.probabilities()["output"][0, i]
            assert float(p) == pytest.approx(value, abs=2e-6)
    assert clamped["output"].isfinite().all()


@given(LOGITS, VALUES)
def test_multiclass_clamp_is_the_posterior(logits, values):
    """Bayes' rule: what is known is fixed, and the others share the rest as they did before."""
    if values.count(1.0) > 1 or values.count(0.0) == 5:
        values = [None] * 5
    spec = fa.Output(FIVE, "multiclass")
    said = Outputs({"output": torch.tensor([logits]).double()}, {"output": spec})
    clamped = fa.Labels(dict(zip(FIVE, values, strict=True))).clamp(said)
    p = clamped.probabilities()["output"][0]
    assert clamped["output"].isfinite().all()
    assert float(p.sum()) == pytest.approx(1)
    for i, value in enumerate(values):
        if value is not None and (value == 1 or None in values):
            assert float(p[i]) == pytest.approx(value, abs=1e-5)
    free = [i for i, value in enumerate(values) if value is None]
    before, after = said["output"][0, free], clamped["output"][0, free]
    torch.testing.assert_close(before - before[:1], after - after[:1], atol=1e-9, rtol=1e-9)


def test_multiclass_clamp_by_hand():
    said = of([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01], [0.5, 0.3, 0.2]], ONE)
    told = fa.Labels({"dog": [0, 0, 0.9]})
    expected = [[0, 0.6, 0.4], [0, 0.5, 0.5], [0.9, 0.06, 0.04]]
    clamped = told.clamp(said).probabilities()["output"]
    torch.testing.assert_close(clamped, torch.tensor(expected).double(), atol=3e-6, rtol=0)


@pytest.mark.parametrize("spec", [MANY, ONE])
def test_clamp_goes_as_far_as_one_is_sure(spec):
    said = of([[0.6, 0.3, 0.1]], spec)
    half = fa.Labels({"dog": 0}, confidence=0.5).clamp(said).probabilities()["output"]
    assert float(half[0, 0]) == pytest.approx(0.3, abs=1e-6)
    if spec is ONE:  # the rest is shared as before
        assert half[0].tolist() == pytest.approx([0.3, 0.525, 0.175], abs=1e-6)
    unsure = fa.Labels({"dog": 0}, confidence=0).clamp(said)
    assert torch.equal(unsure["output"], said["output"])


@given(LOGITS, VALUES, st.sampled_from(["multilabel", "multiclass"]))
def test_clamped_outputs_agree_with_what_is_known(logits, values, kind):
    if kind == "multiclass" and (values.count(1.0) > 1 or values.count(0.0) == 5):
        return
    said = Outputs({"output": torch.tensor([logits]).double()}, {"output": fa.Output(FIVE, kind)})
    told = fa.Labels(dict(zip(FIVE, values, strict=True)))
    assert float(told.loss(told.clamp(said))) < 1e-4
    assert float(told.loss(said)) >= 0


# ---- mistakes ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fa.Labels({"dog": 2}), r"value of 'dog' is 2.0: it must be a number from 0"),
        (lambda: fa.Labels({"dog": -0.1}), r"value of 'dog' is -0.1"),
        (lambda: fa.Labels({"dog": math.nan}), r"value of 'dog' is nan"),
        (lambda: fa.Labels({"dog": [1, math.nan]}), r"value of 'dog' is nan"),
        (lambda: fa.Labels({"dog": "yes"}), r"value of 'dog' is 'yes'"),
        (lambda: fa.Labels([{"dog": 1}, {"cat": math.inf}]), r"value of 'cat' is inf"),
        (lambda: fa.Labels({"dog": 1}, confidence=1.1), r"confidence of 'all' is 1.1"),
        (lambda: fa.Labels({"dog": 1}, confidence={"dog": -1}), r"confidence of 'dog' is -1"),
        (lambda: fa.Labels({"dog": 1}, confidence=math.nan), r"confidence of 'all' is nan"),
        (lambda: fa.Labels("dog"), r"not str.*Labels\(\{'dog': 1\}\)"),
        (lambda: fa.Labels({"dog"}), r"not set"),
        (
            lambda: fa.Labels.from_tensors(torch.tensor([[0.0, 2.0]]), torch.tensor([True, True])),
            r"value of label 1 of image 0 is 2.0",
        ),
        (
            lambda: fa.Labels.from_tensors(torch.tensor([[0.0], [math.nan]]), torch.tensor([True])),
            r"value of label 0 of image 1 is nan",
        ),
        (lambda: fa.All([]), "at least one"),
    ],
)
def test_values_that_cannot_be(make, message):
    with pytest.raises(EvidenceError, match=message):
        make()


CONTRADICTIONS = [
    (MANY, lambda: fa.Labels({"dog": 1}) & fa.Labels({"dog": 0}), r"'dog' .*absent in image 0"),
    (
        MANY,
        lambda: fa.Labels({"dog": [None, 1]}) & fa.Labels({"cat": 1}) & fa.Labels({"dog": 0}),
        r"'dog' is said to be both present and absent in image 1",
    ),
    (ONE, lambda: fa.Labels({"dog": 1, "cat": 1}), r"image 0 .*\{'dog': 1.0, 'cat': 1.0\}"),
    (ONE, lambda: fa.Labels([None, {"dog": 0.6, "cat": 0.6}]), "image 1 .*'cat'"),
    (ONE, lambda: fa.Labels(dict.fromkeys(NAMES, 0)), "image 0 .*one must be"),
    (ONE, lambda: fa.Labels({"dog": 1}) & fa.Labels({"cat": 1}), "image 0 .*exclude each other"),
    (ONE, lambda: fa.Labels({"dog": [None, 1]}) & fa.Labels([{}, {"dog": 0}]), "'dog' .*image 1"),
    (
        ONE,
        lambda: fa.Labels({"dog": 0}) & fa.Labels({"cat": 0, "snow": 0}),
        "image 0 .*one must be",
    ),
    (
        ONE,
        lambda: fa.Labels.from_tensors(torch.tensor([[1.0, 1, 0]] * 2), torch.ones(3) > 0),
        "image 0 .*exclude each other",
    ),
]


@pytest.mark.parametrize(("spec", "make", "message"), CONTRADICTIONS)
def test_contradictions(spec, make, message):
    with pytest.raises(EvidenceError, match=rf"(?s)^Contradiction: .*{message}"):
        make().bind({"output": spec}, 2)


def test_what_only_looks_like_a_contradiction():
    specs = {"output": ONE}
    fa.Labels({"dog": 0.5, "cat": 0.5}).bind(specs, 1)
    fa.Labels({"dog": 1, "cat": 0, "snow": 0}).bind(specs, 1)
    fa.Labels(dict.fromkeys(NAMES, 0), confidence=0.9).bind(specs, 1)  # not quite sure
    (fa.Labels([{"dog": 1}, None]) & fa.Labels([None, {"cat": 1}])).bind(specs, 2)
    (fa.Labels({"dog": 0.9}) & fa.Labels({"dog": 0.2})).bind({"output": MANY}, 1)


TWO = {"tags": fa.Output(("dog", "beach")), "scene": fa.Output(("beach", "city"), "multiclass")}


@pytest.mark.parametrize(
    ("specs", "make", "message"),
    [
        ({"output": MANY}, lambda: fa.Labels({"dgo": 1}), "no label 'dgo'. Did you mean 'dog'"),
        ({"output": MANY}, lambda: fa.Labels({"xyz": 1}), "no label 'xyz'. Possible: 'cat', 'dog'"),
        ({"output": MANY}, lambda: fa.Labels({"xyz": None}), "no label 'xyz'"),
        (
            {"output": MANY},
            lambda: fa.Labels({"dog": 1}, confidence={"snwo": 0.5}),
            "no label 'snwo'. Did you mean 'snow'",
        ),
        (
            {"output": MANY},
            lambda: fa.Labels({"dog": [1, 0, 1]}),
            "'dog' has 3 values, but the batch has 2 images",
        ),
        (
            {"output": MANY},
            lambda: fa.Labels([{"dog": 1}]),
            "given for 1 images, but the batch has 2",
        ),
        (
            {"output": MANY},
            lambda: fa.Labels.from_tensors(torch.zeros(3, 3), torch.ones(3) > 0),
            r"targets is \(3, 3\), but .* \(2, 3\)",
        ),
        (TWO, lambda: fa.Labels({"beach": 1}), r"several outputs: \['tags', 'scene'\].*output="),
        (TWO, lambda: fa.Labels({"dog": 1}, output="tag"), "no output 'tag'. Did you mean 'tags'"),
        (TWO, lambda: fa.Labels({"dog": 1}, output="scene"), "no label 'dog'. Possible: 'beach'"),
        (
            TWO,
            lambda: fa.Labels.from_tensors(torch.zeros(2, 2), torch.ones(2) > 0),
            r"which output.*\['tags', 'scene'\]",
        ),
    ],
)
def test_labels_that_do_not_fit_the_model(specs, make, message):
    with pytest.raises(EvidenceError, match=message):
        make().bind(specs, 2)


@pytest.mark.parametrize(("spec", "make", "message"), CONTRADICTIONS[:5])
def test_refine_raises_before_it_runs(spec, make, message):
    adapter = fa.wrap(torch.nn.Flatten(), outputs={"output": spec})
    with pytest.raises(EvidenceError, match=rf"(?s){message}"):
        adapter.refine(torch.zeros(2, 3), make())
