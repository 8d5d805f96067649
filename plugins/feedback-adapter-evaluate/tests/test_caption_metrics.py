"""BLEU and CIDEr-D by hand, and as COCO's own tools compute them."""

import math

import numpy as np
import pytest

from fa_evaluate.caption_metrics import bleu, bleu_counts, bleu_of, cider


def test_bleu_of_a_copy_is_100_and_brevity_counts():
    words = "a dog runs over the grass".split()
    assert bleu([words], [[words]]) == pytest.approx(100)
    assert bleu([words[:5]], [[words]]) == pytest.approx(100 * math.exp(1 - 6 / 5))


def test_bleu_by_hand():
    caption, reference = "the the cat".split(), "the cat sat".split()
    # clipped unigrams 2/3, bigrams 1/2
    assert bleu([caption], [[reference]], order=2) == pytest.approx(100 * math.sqrt(1 / 3))


def test_cider_of_a_copy_is_10_and_of_strangers_0():
    first, second = "a b c d e".split(), "f g h i j".split()
    scores = cider([first, first], [[first], [second]])
    np.testing.assert_allclose(scores, [10, 0], atol=1e-9)


def test_cider_by_hand():
    # one shared word of two, rarity log 2 each; no shared longer n-grams
    scores = cider([["a", "x"], ["q"]], [[["a", "b"]], [["c", "d"]]])
    weights = math.log(2)
    cosine = weights**2 / (math.sqrt(2) * weights * math.sqrt(2) * weights)
    assert scores[0] == pytest.approx(10 / 4 * cosine)


def test_scores_of_a_corpus_are_those_of_the_coco_tools():
    """Made with pycocoevalcap 1.2 (its Cider and Bleu), on these words."""
    captions = (
        "a brown dog runs across the green grass",
        "two children play in the water at the beach",
        "a man rides a bike down the street",
    )
    references = (
        (
            "a brown dog is running through the green grass",
            "the dog runs across a field",
            "a dog runs over the grass with a ball",
        ),
        (
            "two kids play in the water",
            "children are playing at the beach",
            "two children play in the ocean waves at the beach",
        ),
        (
            "a man on a bike rides down the street",
            "a cyclist rides down a hill",
            "a man in a helmet rides a bike",
        ),
    )
    words = [caption.split() for caption in captions]
    told = [[reference.split() for reference in own] for own in references]
    expected = [2.658954321753484, 3.9397276518706614, 2.801600275893867]
    np.testing.assert_allclose(cider(words, told), expected, rtol=1e-12)
    assert bleu(words, told) == pytest.approx(49.20744494625589, rel=1e-9)
    counts = bleu_counts(words, told)
    assert bleu_of(counts.sum(0)) == bleu(words, told)
    twice = bleu(words + words[:1], told + told[:1])
    assert bleu_of(np.array([2, 1, 1]) @ counts) == pytest.approx(twice)
