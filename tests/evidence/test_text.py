import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import feedback_adapter as fa
from feedback_adapter.evidence.text import mentions
from feedback_adapter.outputs import Outputs

pytest.importorskip("simplemma")
LABELS = ("dog", "traffic light", "woman", "pants")
SPEC = fa.Output(LABELS, "multilabel")
ALWAYS = fa.Reliability(hit=0.5, false=0.1)


def outputs(logits):
    return Outputs({"output": logits}, {"output": SPEC})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two Dogs!", ["dog"]),
        ("under the traffic lights", ["traffic light"]),
        ("traffic near a light", []),
        ("the woman's pants", ["woman", "pants"]),
        ("no dogs, but women", ["woman"]),
        ("there isn't a dog. A woman", ["woman"]),
        ("a woman without a small dog", ["woman"]),
        ("a hot-dog stand", ["dog"]),
        ("", []),
    ],
)
def test_mentions(text, found):
    said = mentions([text], LABELS)[0]
    assert [label for label, is_said in zip(LABELS, said, strict=True) if is_said] == found


def test_loss_is_minus_log_of_the_probability_of_the_text():
    p = torch.tensor([[0.2, 0.5, 0.9, 0.1]])
    loss = fa.Text("a dog", reliability=ALWAYS).loss(outputs(p.logit()))
    said = 0.5 * 0.2 + 0.1 * 0.8
    silent = [0.5 * q + 0.9 * (1 - q) for q in (0.5, 0.9, 0.1)]
    assert float(loss) == pytest.approx(-math.log(said) - sum(map(math.log, silent)), abs=1e-5)
    mentioned = fa.Text("a dog", reliability=ALWAYS, absent=0.0).loss(outputs(p.logit()))
    assert float(mentioned) == pytest.approx(-math.log(said), abs=1e-6)


def test_clamp_is_bayes_rule():
    p = torch.tensor([[0.2, 0.5, 0.9, 0.1]])
    after = fa.Text("a dog", reliability=ALWAYS).clamp(outputs(p.logit())).probabilities()["output"]
    assert float(after[0, 0]) == pytest.approx(0.5 * 0.2 / (0.5 * 0.2 + 0.1 * 0.8), abs=1e-6)
    assert float(after[0, 1]) == pytest.approx(0.5 * 0.5 / (0.5 * 0.5 + 0.9 * 0.5), abs=1e-6)


def test_gradient():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    told = fa.Text(["a dog", None, "women"], reliability=ALWAYS, absent=0.3, confidence=0.8)
    assert torch.autograd.gradcheck(lambda x: told.loss(outputs(x)), logits)


@given(st.floats(-20, 20), st.floats(0.05, 0.9), st.floats(0.001, 0.04))
def test_a_mention_never_speaks_against_a_label(logit, hit, false):
    before = torch.full((1, 4), logit, dtype=torch.float64)
    told = fa.Text("dog", reliability=fa.Reliability(hit, false))
    after = told.clamp(outputs(before))["output"]
    assert float(after[0, 0]) > logit
    assert float(after[0, 1]) <= logit


def test_no_text_says_nothing():
    told = fa.Text([None, "dog"])
    value = outputs(torch.randn(2, 4))
    assert float(told.loss(value)[0]) == 0
    assert torch.equal(told.clamp(value)["output"][0], value["output"][0])
    assert told.known(value)["output"].tolist() == [[False] * 4, [True, False, False, False]]
    alone = told.take(torch.tensor([1])).loss(outputs(value["output"][1:]))
    torch.testing.assert_close(alone, told.loss(value)[1:])


def test_a_text_that_mentions_no_label_changes_nothing():
    told = fa.Text(["hello world", "no dogs", "a dog"])
    value = outputs(torch.randn(3, 4))
    assert told.loss(value)[:2].tolist() == [0, 0]
    assert torch.equal(told.clamp(value)["output"][:2], value["output"][:2])
    assert float(told.loss(value)[2]) > 0


def test_classes_that_exclude_each_other():
    """The probability of the text is summed over which class it is, and Bayes' rule follows."""
    p = torch.tensor([[0.2, 0.5, 0.2, 0.1]]).double()
    value = Outputs({"output": p.log()}, {"output": fa.Output(LABELS, "multiclass")})
    told = fa.Text("a dog and a woman", reliability=ALWAYS)
    text = [0.5 * 0.1 * 0.9**2, 0.1**2 * 0.5 * 0.9, 0.5 * 0.1 * 0.9**2, 0.1**2 * 0.5 * 0.9]
    joint = p[0] * torch.tensor(text).double()
    assert float(told.loss(value)) == pytest.approx(-math.log(joint.sum()), abs=1e-6)
    after = told.clamp(value).probabilities()["output"][0]
    torch.testing.assert_close(after, joint / joint.sum(), atol=1e-6, rtol=0)


def test_reliability_counts_mentions():
    texts = ["dog"] * 30 + ["woman"] * 70
    truth = torch.zeros(100, 4, dtype=torch.bool)
    truth[:60, 0] = True
    learned = fa.Reliability.fit(texts, truth, LABELS, strength=1e-6)
    assert learned.hit["dog"] == pytest.approx(0.5, abs=1e-4)
    assert learned.false["dog"] == pytest.approx(1e-4, abs=1e-4)
    assert learned.false["woman"] == pytest.approx(0.7, abs=1e-4)
    hit, _ = learned.of(["dog", "unheard"])
    assert hit.tolist() == pytest.approx([0.5, 0.4], abs=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fa.Text("dog", absent=2), "absent=2"),
        (lambda: fa.Reliability(hit=1.0), "hit=1.0"),
        (lambda: fa.Reliability(hit=0.01, false=0.5), "hit=0.01 is out of range.*above 0.5"),
        (lambda: fa.Reliability(hit={"dgo": 0.5}).of(LABELS), "Did you mean 'dog'"),
        (lambda: fa.Reliability.fit(["a"], torch.zeros(2, 4), LABELS), r"truth is \(2, 4\)"),
        (lambda: fa.Reliability.fit("dog", torch.ones(3, 4), LABELS), "in a list"),
        (lambda: fa.Text("dog", reliability=0.5), r"pass a Reliability\("),
        (lambda: fa.Text([0, 0]), "text of image 0 is 0: it must be a string, or None"),
        (lambda: fa.Text({"a": 1}), "a list with one per image"),
        (lambda: fa.Text(["dog"]).bind({"output": SPEC}, 2), "Texts are given for 1 images"),
        (lambda: fa.Text("dog", output="x").bind({"output": SPEC}, 1), "There is no output 'x'"),
        (lambda: fa.Text("dog").bind({"o": SPEC, "p": SPEC}, 1), "which output Text is about"),
    ],
)
def test_mistakes_say_what_to_do(make, message):
    with pytest.raises(fa.FeedbackAdapterError, match=message):
        make()
