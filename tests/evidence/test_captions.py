import math

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.networks.decoder import END, START, CaptionDecoder
from feedback_adapter.networks.decoding import beam_search
from feedback_adapter.outputs import Outputs

VOCABULARY = ("<start>", "<end>", "<unknown>", "a", "dog", "runs", "sits")


@pytest.fixture
def decoder():
    torch.manual_seed(1)
    module = CaptionDecoder(5, len(VOCABULARY), width=4, hidden=6).double().eval()
    return module.requires_grad_(False)


@pytest.fixture
def specs(decoder):
    return {
        "words": fa.Output(("dog", "runs"), "multilabel"),
        "caption": fa.Output(VOCABULARY, "tokens", decoder=decoder),
    }


def outputs(specs, images):
    return Outputs({"words": torch.zeros(len(images), 2).double(), "caption": images}, specs)


def by_hand(decoder, image, words):
    """-log p of a caption, word after word."""
    total, memory, last = 0.0, None, START
    for word in [*words, END]:
        logits, memory = decoder.step(image[None], torch.tensor([[last]]), memory)
        total -= float(logits[0, 0].log_softmax(0)[word])
        last = word
    return total


def test_loss_is_the_captions_improbability(decoder, specs):
    images = torch.randn(3, 4).double()
    told = fa.Captions(["A dog runs.", None, ["dog", "a zebra sits"]])
    loss = told.loss(outputs(specs, images))
    assert float(loss[0]) == pytest.approx(by_hand(decoder, images[0], [3, 4, 5]), rel=1e-9)
    assert float(loss[1]) == 0
    both = by_hand(decoder, images[2], [4]) + by_hand(decoder, images[2], [3, 2, 6])
    assert float(loss[2]) == pytest.approx(both, rel=1e-9)


def test_gradient(specs):
    images = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    told = fa.Captions(["a dog", ["runs", "sits"]], confidence=0.5)
    assert torch.autograd.gradcheck(lambda x: told.loss(outputs(specs, x)), images)


def test_an_image_does_not_depend_on_its_batch_mates(specs):
    images = torch.randn(3, 4).double()
    told = fa.Captions(["a dog", ["runs", "sits"], None]).bind(specs, 3)
    whole = told.loss(outputs(specs, images))
    order = torch.tensor([2, 1])
    torch.testing.assert_close(told.take(order).loss(outputs(specs, images[order])), whole[order])


def test_beam_search_scores_what_it_writes_and_a_wide_beam_is_exhaustive(decoder):
    images = torch.randn(4, 4).double()
    found, scores = beam_search(decoder, images, beam=49, longest=1)
    for image, caption, score in zip(images, found, scores, strict=True):
        if len(caption) <= 1:  # two words without an end are cut off
            expected = -by_hand(decoder, image, caption)
            assert float(score) == pytest.approx(expected, rel=1e-9)


def test_greedy_takes_the_likeliest_word_each_time(decoder):
    image = torch.randn(1, 4).double()
    found, _ = beam_search(decoder, image, beam=1, longest=5)
    memory, last, expected = None, START, []
    for _ in range(6):
        logits, memory = decoder.step(image, torch.tensor([[last]]), memory)
        logits[0, 0, [0, 2]] = -math.inf
        last = int(logits[0, 0].argmax())
        if last == END:
            break
        expected.append(last)
    assert found[0] == expected[:6]


def test_known_words_change_the_caption_and_a_caption_the_words(decoder):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh())
            self.words = nn.Linear(5, 2)
            self.decoder = CaptionDecoder(5, len(VOCABULARY), width=4, hidden=6)

        def forward(self, x):
            features = self.body(x)
            return {"words": self.words(features), "caption": self.decoder.start(features)}

    torch.manual_seed(0)
    model = Model().eval()
    adapter = fa.wrap(
        model,
        outputs={
            "words": fa.Output(("dog", "runs"), "multilabel", select="words"),
            "caption": fa.Output(VOCABULARY, "tokens", "caption", decoder=model.decoder),
        },
    )
    images = torch.randn(2, 3, 2, 2)
    result = adapter.refine(images, fa.Labels({"dog": 1}), pivots="body.2", step_size=0.1)
    assert not torch.equal(result.after["caption"], result.before["caption"])
    assert len(fa.write_captions(result.outputs_after, beam=2)) == 2
    assert "dog" in result.table()
    result = adapter.refine(images, fa.Captions("a dog"), pivots="body.2", step_size=0.1)
    assert bool(result.improved.all())
    assert not torch.equal(result.after["words"], result.before["words"])
    assert all(p.grad is None for p in model.parameters())


def test_mistakes_say_what_to_do(specs):
    for told, message in [
        (fa.Captions(["a"]), "1 images, but the batch has 2"),
        (fa.Captions("!?"), "no words"),
        (fa.Captions("a", output="words"), "No output 'words' is a caption's"),
    ]:
        with pytest.raises(fa.FeedbackAdapterError, match=message):
            told.bind(specs, 2)
    with pytest.raises(fa.FeedbackAdapterError, match="tokens"):
        fa.Captions("a").bind({"words": specs["words"]}, 1)
