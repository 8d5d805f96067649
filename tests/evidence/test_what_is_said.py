"""Results say what the evidence said: present or absent, nothing, or nothing that could be used."""

import pytest
import torch

import feedback_adapter as fa
from feedback_adapter.networks.decoder import CaptionDecoder
from feedback_adapter.plotting import heading
from feedback_adapter.refinement import Refinement
from feedback_adapter.testing import LABELS, tiny_adapter, tiny_images, tiny_outputs

pytest.importorskip("simplemma")
PETS = {"pet": ["cat", "dog"], "thing": ["ball", "snow"]}


def refine(told, kind="multilabel", **more):
    return tiny_adapter(kind).refine(tiny_images(2), told, strategy="residual", **more)


def said(result, image=0):
    return {row.label: row.present for row in result.changes(image) if row.known}


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("confidence", [1.0, 0.05])
def test_present_and_absent_are_the_evidences(kind, confidence):
    """Also where the prediction says otherwise after all."""
    told = fa.Labels({"dog": 1, "ball": 0}, confidence=confidence)
    result = refine(told, kind, steps=0)
    assert said(result) == {"dog": True, "ball": False}
    assert sorted(heading(result.changes(0)[:2])[7:].split(", ")) == ["dog", "no ball"]
    table = result.table(image=0)
    assert table.count("known") == 2
    assert table.count("known absent") == 1
    assert {row["present"] for row in result.to_dict()["images"][0]["predictions"]} == {
        True, False, None,
    }  # fmt: skip


def test_texts_and_coarse_classes():
    assert said(refine(fa.Text("a dog", confidence=0.01), steps=0)) == {"dog": True}
    coarse = fa.Coarse(["pet", None], hierarchy=PETS, confidence=0.1)
    result = refine(coarse, "multiclass", steps=0)
    assert said(result) == {"snow": False, "ball": False}
    assert said(result, 1) == {}
    alone = fa.Coarse("one", hierarchy={"one": ["dog"]})
    assert said(refine(alone, steps=0)) == {"dog": True}


def test_what_is_told_and_believed_to_be_wrong_was_told():
    outputs = tiny_outputs(1)
    outputs = outputs.replace(output=torch.tensor([[-9.0, 0, 0, 0]]).double())
    told = fa.Labels({"cat": 1}, wrong=0.3).bind(outputs.specs, 1)
    believed = told.believed(outputs, lambda name, *_: outputs[name])
    assert float(believed.doubts()["output"][0, 0]) > 0.5
    assert believed.present(outputs)["output"].tolist() == [[True, False, False, False]]


def test_parts_of_results_keep_it():
    result = refine(fa.Labels({"dog": [1, 0]}), steps=0)
    whole = Refinement.cat([result.take(torch.tensor([1])), result.take(torch.tensor([0]))])
    assert said(whole) == {"dog": False}
    assert said(whole, 1) == {"dog": True}


@pytest.mark.parametrize("strategy", ["residual", "newton", "layerwise"])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_text_that_mentions_no_label_changes_nothing_and_says_so(strategy, kind):
    told = fa.Text(["hello world, no dogs", "a dog"])
    result = tiny_adapter(kind).refine(tiny_images(2), told, strategy=strategy)
    assert torch.equal(result.after[0], result.before[0])
    assert "no text mentions one of the labels" in result.status[0]
    assert "no text" not in result.status[1]
    assert not torch.equal(result.after[1], result.before[1])
    both = told & fa.Labels({"cat": [1, None]})
    assert "no text" not in " ".join(refine(both).status)


class TestUnderLabelStatistics:
    """`posterior` is never a silent no-op."""

    @pytest.fixture
    def adapter(self):
        adapter = tiny_adapter(second="multiclass")
        p = torch.rand(50, 4)
        adapter.fit_prior(p, (p > 0.5).float())
        return adapter

    @pytest.mark.parametrize(
        "told",
        [
            fa.Coarse("pet", hierarchy=PETS, output="output"),
            fa.Coarse("places", hierarchy={"places": ["indoor", "night"]}),
            fa.Labels({"outdoor": 1}),
            fa.Labels({"outdoor": 0.6}, confidence=0.5),
            fa.Text("a dog", output="output", confidence=0.1),
            fa.Text("outdoor", output="scene"),
        ],
    )
    def test_something_changes(self, adapter, told):
        result = adapter.refine(tiny_images(2), told, strategy="posterior")
        assert float(result.loss.sum()) < float(result.losses[0].sum())
        assert "converged" in result.status[0]

    def test_what_can_not_be_used_is_said(self):
        words = ("<start>", "<end>", "<unknown>", "a", "dog")
        decoder = CaptionDecoder(5, len(words), width=4, hidden=6)
        specs = {
            "output": fa.Output(LABELS, select="0"),
            "caption": fa.Output(words, "tokens", "1", decoder=decoder),
        }

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.decoder = torch.nn.Linear(3, 8), decoder

            def forward(self, x):
                return self.body(x).split(4, 1)

        adapter = fa.wrap(Model().eval(), outputs=specs)
        p = torch.rand(50, 4)
        adapter.fit_prior(p, (p > 0.5).float())
        told = fa.Captions(["a dog", None])
        result = adapter.refine(torch.rand(2, 3), told, strategy="posterior", pivots="input")
        assert "can't use what is known" in result.status[0]
        assert "converged" in result.status[1]
