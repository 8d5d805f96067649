"""Every kind of evidence keeps its promises on every kind of output."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import feedback_adapter as fa
from feedback_adapter.evidence.coarse import log_any
from feedback_adapter.networks.decoder import CaptionDecoder
from feedback_adapter.outputs import Outputs
from feedback_adapter.testing import LABELS, check_evidence, tiny_adapter, tiny_images, tiny_outputs

pytest.importorskip("simplemma")
PETS = {"pet": ["cat", "dog"], "thing": ["ball", "snow"]}
VALUES = torch.tensor([[0.7, 0, 0.3, torch.nan], [torch.nan] * 4, [0, 0, torch.nan, 0], [0.25] * 4])
EVIDENCE = {
    "labels": lambda: fa.Labels([{"cat": 1}, None, {"dog": 0, "snow": 0.25}, {}]),
    "soft labels": lambda: fa.Labels({"Cats": [0.3, None, 0.4, 0]}, confidence=0.5),
    "tensors": lambda: fa.Labels.from_tensors(VALUES, output="output"),
    "coarse": lambda: fa.Coarse(["pet", None, ("thing", "pet"), "thing"], hierarchy=PETS),
    "coarse, half": lambda: fa.Coarse("Pets", hierarchy=PETS, confidence=0.5, output="output"),
    "text": lambda: fa.Text(["two dogs", None, "hello", "a cat in snow"], output="output"),
    "all": lambda: fa.Labels({"cat": 0}) & fa.Coarse("pet", hierarchy=PETS, output="output")
    & fa.Text("a ball", output="output"),
}  # fmt: skip


@pytest.mark.parametrize("second", [None, "multilabel", "multiclass"])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("name", EVIDENCE)
def test_conformance(name, kind, second):
    outputs = tiny_outputs(kind=kind, second=second)
    evidence = EVIDENCE[name]()
    check_evidence(evidence, outputs)
    if second is not None:
        assert not evidence.known(outputs)["scene"].any()
        assert torch.equal(evidence.clamp(outputs)["scene"], outputs["scene"])


def test_conformance_of_captions_beside_labels():
    decoder = CaptionDecoder(5, 6, width=4, hidden=6).double().eval().requires_grad_(False)
    words = ("<start>", "<end>", "<unknown>", "a", "dog", "runs")
    labels = tiny_outputs()
    specs = labels.specs | {"caption": fa.Output(words, "tokens", decoder=decoder)}
    outputs = Outputs(dict(labels) | {"caption": torch.randn(4, 4).double()}, specs)
    captions = fa.Captions(["a dog", None, ["dog", "a"], "runs"])
    check_evidence(captions, outputs)
    check_evidence(captions & fa.Labels({"dog": 1}), outputs)
    check_evidence(fa.Labels.from_tensors(VALUES), outputs)  # only one output has labels


@pytest.mark.parametrize("name", EVIDENCE)
@pytest.mark.parametrize("strategy", ["residual", "newton"])
def test_refines_models_with_two_outputs(strategy, name):
    adapter = tiny_adapter(second="multiclass")
    result = adapter.refine(tiny_images(4), EVIDENCE[name](), strategy=strategy, pivots="net.block")
    assert float(result.losses[-1].sum()) < float(result.losses[0].sum())
    assert result.changes(3) is not None
    assert "scene/night" in result.table(10)


@given(st.lists(st.floats(-300, 300), min_size=4, max_size=4), st.sets(st.integers(0, 3)))
def test_one_of_several_independent_labels(logits, places):
    """Exact: every world is counted, and it stays finite where probabilities vanish."""
    mask = torch.tensor([[place in places for place in range(4)]])
    mask[0, 0] |= not places
    z = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    value = log_any(z, mask)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), z)[0].isfinite().all()
    if max(map(abs, logits)) < 30:
        p, total = z.detach()[0].sigmoid(), 0.0
        for world in itertools.product([0, 1], repeat=4):
            row = torch.tensor(world)
            if bool((row.bool() & mask[0]).any()):
                total += float(torch.where(row.bool(), p, 1 - p).prod())
        assert float(value.detach().exp()) == pytest.approx(total, rel=1e-6)


def test_coarse_on_multilabel_is_bayes_rule():
    """P(label | at least one of the set), by counting every world."""
    p = torch.tensor([[0.2, 0.5, 0.9, 0.1]]).double()
    outputs = Outputs({"output": p.logit()}, {"output": fa.Output(LABELS, hierarchy=PETS)})
    told = fa.Coarse("pet")
    some = 1 - 0.8 * 0.5
    assert float(told.loss(outputs).exp()) == pytest.approx(1 / some)
    after = told.clamp(outputs).probabilities()["output"][0]
    expected = torch.tensor([0.2 / some, 0.5 / some, 0.9, 0.1]).double()
    torch.testing.assert_close(after, expected)
    half = fa.Coarse("pet", confidence=0.5).clamp(outputs).probabilities()["output"][0]
    torch.testing.assert_close(half, (expected + p[0]) / 2)
    assert not told.known(outputs)["output"].any()


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_what_is_certain_holds_beside_what_is_less_so(kind):
    outputs = tiny_outputs(1, kind=kind)
    sure, unsure = fa.Labels({"ball": 1}), fa.Labels({"ball": 0}, confidence=0.6)
    half = fa.Coarse("pet", hierarchy=PETS, confidence=0.5)
    for told in itertools.permutations([sure, unsure, half, fa.Text("a cat")]):
        p = fa.All(told).clamp(outputs).probabilities()["output"][0]
        assert float(p[LABELS.index("ball")]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_the_only_label_of_a_set_that_is_not_ruled_out_holds(kind):
    """However unlikely the model finds it."""
    logits = torch.tensor([[-20.0, -30, 5, 5]]).double()
    outputs = Outputs({"output": logits}, {"output": fa.Output(LABELS, kind, hierarchy=PETS)})
    for told in (
        fa.Coarse("pet") & fa.Labels({"cat": 0}),
        fa.Labels({"cat": 0}) & fa.Coarse("pet"),
    ):
        p = told.clamp(outputs).probabilities()["output"][0].tolist()
        assert p[:2] == pytest.approx([0, 1], abs=1e-5)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **more: fa.Labels({"dog": 1}, **more),
        lambda **more: fa.Coarse("one", hierarchy={"one": ["dog"]}, **more),
        lambda **more: fa.Text("a dog", **more),
    ],
)
def test_confidence_0_is_no_evidence(make, kind):
    outputs = tiny_outputs(kind=kind)
    told = make(confidence=0)
    assert not told.loss(outputs).any()
    assert not told.known(outputs)["output"].any()
    assert torch.equal(told.clamp(outputs)["output"], outputs["output"])
