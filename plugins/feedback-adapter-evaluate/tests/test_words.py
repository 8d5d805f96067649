"""From captions to words."""

from __future__ import annotations

import numpy as np
import pytest

from fa_evaluate.data import words

simplemma = pytest.importorskip("simplemma", reason="simplemma is not installed")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Two DOGS are playing in the snow.", {"dog", "play", "snow"}),
        ("The boy's ball isn't here", {"boy", "ball", "isn"} - {"isn"}),
        ("tri-colored dog", {"tri", "color", "dog"}),
        ("children sitting", {"child", "sit"}),
        ("a I , !", set()),
    ],
)
def test_caption_words(caption: str, expected: set[str]) -> None:
    assert words.caption_words([caption]) == expected


def test_vocabulary_counts_images_and_breaks_ties_by_name() -> None:
    captions = [["dog dog", "dog"], ["cat", "ball"], ["ball cat dog"], ["dog"], ["horse"]]
    assert words.build_vocabulary(captions, min_images=2) == ("dog", "ball", "cat")
    assert words.build_vocabulary(captions, min_images=2, max_words=1) == ("dog",)


def test_targets() -> None:
    targets = words.targets_for([["dogs"], ["a cat", "a dog"], []], ["cat", "dog"])
    assert targets.dtype == np.bool_
    assert targets.tolist() == [[False, True], [True, True], [False, False]]
    assert words.targets_for([], ["cat"]).shape == (0, 1)
