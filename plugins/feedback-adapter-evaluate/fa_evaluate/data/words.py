"""From captions to words: the vocabulary that a caption-words checkpoint predicts.

After Feedback-prop (CVPR 2018), section 4.1: lower-case, tokenise, lemmatise, leave
out stop words, keep the most frequent. The paper's lemmatiser needs a download; we
use simplemma, whose dictionary is inside its package.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from feedback_adapter.evidence.lemmas import lemma

__all__ = ["STOP_WORDS", "build_vocabulary", "caption_words", "targets_for"]

# Words that say how a sentence is built or where things stand to each other, not what
# is in the picture. Counted things are left out with them ("two dogs" has the word dog).
STOP_WORDS = frozenset(
    """
    a about above across after again against ahead all almost along alongside also am
    amid among an and another any anything apart are around as aside at atop away be
    because been before behind being below beneath beside besides between beyond both but
    by can close could did do does doing done down during each eight either else every
    few five for four from front full further get gets getting had has have having he her
    here hers herself him himself his how i if in inside into is it its itself just last
    less many may me middle mid more most much my near nearby neither next nine no nor not
    of off on once one only onto or other others our out outside over own past per several
    seven she should side six so some someone something still such ten than that the their
    them themselves then there these they this those three through throughout to together
    too top toward towards twelve two under underneath until up upon us use various very
    via was we were what when where which while who whom whose why will with within
    without would yet you your
    """.split()
)

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?")


def caption_words(captions: Iterable[str]) -> frozenset[str]:
    """The set of lemmatised content words in one image's captions.

    Args:
        captions: Sentences in English, in any case and with any punctuation.

    Returns:
        Lower-case lemmas of two letters or more, without stop words.

    Raises:
        DataError: simplemma isn't installed.
    """
    words: set[str] = set()
    for caption in captions:
        for token in _TOKEN.findall(caption.lower().replace("\u2019", "'")):
            stem = token.partition("'")[0]  # dog's -> dog, isn't -> isn
            if stem in STOP_WORDS:
                continue
            word = lemma(stem)
            if len(word) > 1 and word not in STOP_WORDS:
                words.add(word)
    return frozenset(words)


def build_vocabulary(
    captions: Iterable[Sequence[str]], min_images: int = 50, max_words: int | None = None
) -> tuple[str, ...]:
    """The words that the captions of enough images use.

    Args:
        captions: For each (training) image, its captions.
        min_images: In how many images' captions a word must be, at least.
        max_words: Keep at most this many, the most frequent.

    Returns:
        Words by descending number of images; ties in alphabetical order.
    """
    counts: Counter[str] = Counter()
    for of_image in captions:
        counts.update(caption_words(of_image))
    frequent = [word for word, images in counts.items() if images >= min_images]
    return tuple(sorted(frequent, key=lambda word: (-counts[word], word))[:max_words])


def targets_for(captions: Iterable[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Which labels each image's captions mention.

    Args:
        captions: For each of N images, its captions.
        labels: The n words, as `build_vocabulary` returns them.

    Returns:
        (N, n) bool.
    """
    rows: list[list[bool]] = []
    for of_image in captions:
        words = caption_words(of_image)
        rows.append([label in words for label in labels])
    return np.array(rows, dtype=np.bool_).reshape(len(rows), len(labels))
