"""The caption protocol: its figures by hand, its draws fixed, every strategy with captions."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

import feedback_adapter as fa
from fa_evaluate.baselines.caption_neighbours import Neighbours
from fa_evaluate.caption_metrics import bleu, cider
from fa_evaluate.protocols.caption import CaptionProtocol
from feedback_adapter.errors import DataError, ModelError, OptionsError
from feedback_adapter.networks.decoder import CaptionDecoder

WORDS = ("dog", "cat", "run", "grass", "snow")
VOCABULARY = ("<start>", "<end>", "<unknown>", "a", *WORDS)
SETTINGS = {"strategy": "residual", "pivots": "body.1", "steps": 4, "step_size": 0.2}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.words = nn.Linear(8, len(WORDS))
        self.decoder = CaptionDecoder(8, len(VOCABULARY), width=5, hidden=7)

    def forward(self, x):
        features = self.body(x)
        return {"words": self.words(features), "caption": self.decoder.start(features)}


@pytest.fixture
def adapter() -> fa.Adapter:
    model = Model().eval()
    with torch.no_grad():  # untrained decoders write the same of every image
        model.decoder.image.weight.mul_(8)
        model.decoder.bias[1] = -1.0
    outputs = {
        "words": fa.Output(WORDS, "multilabel", "words"),
        "caption": fa.Output(VOCABULARY, "tokens", "caption", decoder=model.decoder),
    }
    return fa.wrap(model, outputs=outputs)


@pytest.fixture
def data() -> tuple[torch.Tensor, list[list[str]], np.ndarray]:
    said = [
        ["a dog runs", "a dog on grass", "dog"], ["a cat", "cat in snow", "a cat runs"],
        ["grass and a dog", "a dog", "snow"], ["the snow", "dog", "a cat on snow"],
        ["a cat", "a dog runs", "grass"], ["dog runs", "grass", "a dog"],
    ]  # fmt: skip
    held = [[word in " ".join(own) for word in WORDS] for own in said]
    return torch.randn(6, 6), said, np.array(held)


def figures(rows):
    return {(row.method, row.known, row.metric): row for row in rows}


def words_of(texts):
    return [text.split() for text in texts]


def test_words_known_by_hand(adapter, data):
    """CIDEr and BLEU of what is written before and after, over all captions."""
    images, said, truth = data
    protocol = CaptionProtocol(known=[40, 100], draws=2, seed=3, batch=4, samples=5)
    found = figures(protocol.run(adapter, images, said, truth, {"mine": SETTINGS}))
    references = [words_of(own) for own in said]
    plain = fa.write_captions(adapter.read(adapter.model(images)), beam=3)
    base = cider(words_of(plain), references).mean()
    row = found["unrefined", 0, "CIDEr, 3 beams"]
    assert (row.value, row.uses, row.baseline, row.images) == (
        pytest.approx(base),
        "weights",
        True,
        6,
    )
    for share in (40, 100):
        masks = list(protocol.masks(len(WORDS), share))
        assert [int(mask.sum()) for mask in masks] == ([2, 2] if share == 40 else [5])
        each, gains, blues = [], [], []
        for mask in masks:
            told = fa.Labels(
                {WORDS[i]: truth[:, i].tolist() for i in np.flatnonzero(mask)}, output="words"
            )
            after = adapter.refine(images, told, **SETTINGS).outputs_after
            written = words_of(fa.write_captions(after, beam=3))
            each.append(cider(written, references).mean())
            gains.append(each[-1] - base)
            blues.append(bleu(words_of(fa.write_captions(after, beam=1)), references))
        row = found["mine", share, "CIDEr, 3 beams"]
        assert row.value == pytest.approx(np.mean(each))
        assert row.sd == pytest.approx(np.std(each, ddof=1) if len(each) > 1 else 0)
        assert found["mine", share, "CIDEr gain, 3 beams"].value == pytest.approx(np.mean(gains))
        assert found["mine", share, "BLEU-4, greedy"].value == pytest.approx(np.mean(blues))
    assert row.low <= row.value <= row.high
    assert not row.baseline


def test_left_out_caption_is_the_only_reference_and_its_words_are_not_told(adapter, data):
    images, said, truth = data
    protocol = CaptionProtocol(known=[100], draws=3, samples=0)
    found = figures(protocol.run(adapter, images, said, truth, {"mine": SETTINGS}))
    each = []
    for number in range(3):
        rest = [[c for i, c in enumerate(own) if i != number] for own in said]
        told = [[word in " ".join(own) for word in WORDS] for own in rest]
        evidence = fa.Labels.from_tensors(torch.tensor(told), torch.ones(5).bool(), "words")
        after = adapter.refine(images, evidence, **SETTINGS).outputs_after
        written = words_of(fa.write_captions(after, beam=3))
        each.append(cider(written, [words_of([own[number]]) for own in said]).mean())
    row = found["mine", 100, "CIDEr of the caption left out, 3 beams"]
    assert row.value == pytest.approx(np.mean(each))
    assert row.sd == pytest.approx(np.std(each, ddof=1))


def test_caption_known_by_hand(adapter, data):
    """Words that the known caption mentions are left out of the ranking."""
    images, said, truth = data
    protocol = CaptionProtocol(known=[100], draws=1, samples=0)
    found = figures(protocol.run(adapter, images, said, truth, {"mine": SETTINGS}))
    mentioned = np.array([[word in own[0] for word in WORDS] for own in said])
    rest = np.array([[word in " ".join(own[1:]) for word in WORDS] for own in said])

    def measured(scores):
        each = []
        for i in range(len(WORDS)):
            keep = ~mentioned[:, i]
            if rest[keep, i].any():
                each.append(average_precision_score(rest[keep, i], scores[keep, i]))
        return 100 * np.mean(each)

    before = adapter.predict(images)["words"].numpy()
    metric, share = "mAP of words not mentioned", 100 / 3
    assert found["unrefined", 0, metric].value == pytest.approx(measured(before))
    for method, told in (
        ("mine, from a caption", fa.Captions([own[0] for own in said])),
        ("mine, from a caption as text", fa.Text([own[0] for own in said])),
    ):
        after = adapter.refine(images, told, **SETTINGS).after["words"].numpy()
        assert found[method, share, metric].value == pytest.approx(measured(after))
    gain = found["mine, from a caption", share, "mAP gain of words not mentioned"].value
    assert gain == pytest.approx(
        found["mine, from a caption", share, metric].value - measured(before)
    )


@pytest.mark.parametrize("strategy", ["residual", "layerwise"])
@pytest.mark.parametrize("reference", [False, True])
def test_a_caption_is_evidence_for_every_strategy_that_descends(adapter, data, strategy, reference):
    images, said, _ = data
    kind = {"residual": fa.ResidualOptions, "layerwise": fa.LayerwiseOptions}[strategy]
    options = kind.reference(steps=3, step_size=0.1) if reference else kind(steps=3)
    result = adapter.refine(
        images, fa.Captions([own[0] for own in said]), strategy=strategy,
        pivots=["body.0", "body.1"], options=options,
    )  # fmt: skip
    assert float(result.losses[-1].sum()) < float(result.losses[0].sum())
    assert not torch.equal(result.after["words"], result.before["words"])


@pytest.mark.parametrize("strategy", ["residual", "layerwise", "newton"])
def test_a_caption_combines_with_words(adapter, data, strategy):
    images, said, truth = data
    words = fa.Labels.from_tensors(torch.from_numpy(truth), torch.ones(5).bool(), "words")
    both = fa.Captions([own[0] for own in said]) & words
    result = adapter.refine(images, both, strategy=strategy, pivots="body.1")
    assert float(result.losses[-1].sum()) < float(result.losses[0].sum())
    assert bool(result.known["words"].all())


def test_baselines_are_measured_on_the_same_draws(adapter, data):
    images, said, truth = data
    baselines = {"near": Neighbours(torch.randn(9, 5), torch.rand(9, 5) < 0.5, count=2)}
    protocol = CaptionProtocol(known=[40], draws=2, samples=2)
    found = figures(protocol.run(adapter, images, said, truth, {}, baselines=baselines))
    row = found["near", 40, "CIDEr, greedy"]
    assert (row.uses, row.baseline) == ("statistics", True)
    assert not any("mAP" in metric for method, _, metric in found if method == "near")


def test_neighbours_by_hand():
    vectors = torch.tensor([[1.0, 0], [0, 1], [5, 5]])
    theirs = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]]).bool()
    own, said = torch.tensor([[10.0, 10]]), torch.tensor([[1, 1, 1]]).bool()
    known = torch.tensor([True, True, False])
    near = Neighbours(vectors, theirs, count=1)
    torch.testing.assert_close(near(own, said, known), vectors[1:2])  # the third isn't known
    mixed = Neighbours(vectors, theirs, count=2, share=0.5)(own, said, known)
    torch.testing.assert_close(mixed, 0.5 * own + 0.5 * vectors[:2].mean(0))
    with pytest.raises(OptionsError, match="count=4 must be 1 to 3"):
        Neighbours(vectors, theirs, count=4)
    with pytest.raises(DataError, match="3 vectors, but 2 targets"):
        Neighbours(vectors, theirs[:2])


def test_mistakes_say_what_to_do(adapter, data):
    images, said, truth = data
    protocol = CaptionProtocol()
    with pytest.raises(DataError, match=r"\(6, 5\), not \(6, 4\)"):
        protocol.run(adapter, images, said, truth[:, :4], {})
    with pytest.raises(DataError, match="same number of captions"):
        protocol.run(adapter, images, [["a"], *said[1:]], truth, {})
    one = fa.wrap(nn.Linear(6, 5), labels=WORDS)
    with pytest.raises(ModelError, match="multilabel output of words and one 'tokens'"):
        protocol.run(one, images, said, truth, {})
    with pytest.raises(OptionsError, match="above 0, to 100"):
        CaptionProtocol(known=[0])
