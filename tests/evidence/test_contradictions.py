"""What can't hold together is refused, however many pieces of evidence say it."""

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError
from feedback_adapter.testing import tiny_adapter, tiny_images

L, C = fa.Labels, fa.Coarse
PETS = {"dogs": ["poodle", "beagle"], "cats": ["tabby"], "birds": ["robin"]}
NAMES = ("poodle", "beagle", "tabby", "robin")
SPECS = {
    kind: {"c": fa.Output(NAMES, kind, hierarchy=PETS)} for kind in ("multiclass", "multilabel")
}
FINE_AND_HEAD = SPECS["multiclass"] | {"head": fa.Output(("dogs", "cats", "birds"), "multiclass")}

CLASSES = {
    "two coarse classes": C("dogs") & C("cats"),
    "a class outside": C("dogs") & L({"robin": 1}),
    "the only one ruled out": C("birds") & L({"robin": 0}),
    "both ruled out": C("dogs") & L({"poodle": 0, "beagle": 0}),
    "both ruled out by two": L({"poodle": 0}) & C("dogs") & L({"beagle": 0}),
    "all ruled out by three": L({"poodle": 0, "beagle": 0}) & L({"tabby": 0}) & L({"robin": 0}),
    "too much in three": L({"poodle": 0.4}) & L({"beagle": 0.4}) & L({"tabby": 0.4}),
    "two present": L({"poodle": 1}) & L({"tabby": 1}),
    "nested": fa.All([fa.All([L({"poodle": 1})]), L({"poodle": 0})]),
    "one label by two names": L({"Poodle": 1, "poodles": 0}),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    with pytest.raises(EvidenceError, match="Contradiction"):
        CLASSES[name].bind(SPECS["multiclass"], 2)


@pytest.mark.parametrize(
    "told",
    [
        L({"poodle": 1}) & L({"poodle": 0}),
        C("dogs") & L({"poodle": 0}) & L({"beagle": 0}),
        C("birds") & L({"robin": 0}),
        L({"poodle": 1, "POODLE": 0.5}),
    ],
)
def test_labels_that_can_hold_together(told):
    with pytest.raises(EvidenceError, match="Contradiction"):
        told.bind(SPECS["multilabel"], 1)


def test_only_the_image_in_question_is_named():
    told = C(["dogs", "cats", None]) & L({"poodle": [0, 0, 1]}) & L({"beagle": [None, None, 1]})
    with pytest.raises(EvidenceError, match="image 2"):
        told.bind(SPECS["multiclass"], 3)


def test_the_head_of_coarse_classes():
    told = C("dogs", through="both") & L({"cats": 1}, output="head")
    with pytest.raises(EvidenceError, match="'cats' is said to be both present and absent"):
        told.bind(FINE_AND_HEAD, 1)


@pytest.mark.parametrize(
    "told",
    [
        C("dogs") & C(("dogs", "cats")),
        C("dogs") & L({"robin": 0, "tabby": 0}),
        C("dogs") & L({"poodle": 1}),
        C("dogs", confidence=0.9) & C("cats"),
        C("dogs", confidence=0.9) & L({"robin": 1}),
        L({"poodle": 1}, confidence=0.5) & L({"poodle": 0}, confidence=0.5),
        C(["dogs", None]) & C([None, "cats"]),
        L({"poodle": 0.4}) & L({"poodle": 0.4}) & L({"poodle": 0.4}),
    ],
)
def test_what_only_looks_like_a_contradiction(told):
    told.bind(SPECS["multiclass"], 2)


def test_labels_that_may_be_wrong_do_not_contradict():
    (L({"poodle": 1}, wrong=0.1) & L({"poodle": 0}, wrong=0.1)).bind(SPECS["multilabel"], 1)


def test_refused_before_the_model_runs():
    adapter = tiny_adapter("multiclass")
    told = C("pet", hierarchy={"pet": ["cat", "dog"]}) & L({"snow": 1})
    with pytest.raises(EvidenceError, match="Contradiction"):
        adapter.refine(tiny_images(1), told)
    assert torch.equal(adapter.model(tiny_images(1)), adapter.predict(tiny_images(1)))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_a_class_whose_labels_are_all_told_unlikely(kind):
    groups = {"pet": ["dog", "cat"], "wild": ["bird", "fish"]}
    output = fa.Output(["dog", "cat", "bird", "fish"], kind, hierarchy=groups)
    adapter = fa.wrap(nn.Linear(2, 4), outputs={"output": output})
    images, pet = torch.ones(1, 2), fa.Coarse("pet")
    with pytest.raises(EvidenceError, match="one of .*'dog', 'cat'.* must be right"):
        adapter.refine(images, pet & fa.Labels({"dog": 0.3, "cat": 0.3}), pivots="input")
    for told in ({"dog": 0.3}, {"dog": 0.3, "cat": 0.7}, {"dog": 0.333, "cat": 0.666}):
        after = adapter.refine(images, pet & fa.Labels(told), pivots="input").probabilities[0]
        assert float(after[0]) == pytest.approx(told["dog"], abs=2e-3)
    unlikely = fa.Labels(dict.fromkeys(output.labels, 0.1))
    if kind == "multiclass":
        with pytest.raises(EvidenceError, match="must be right"):
            adapter.refine(images, unlikely, pivots="input")
    else:
        adapter.refine(images, unlikely, pivots="input")
