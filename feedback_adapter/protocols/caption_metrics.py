"""How good captions are: BLEU and CIDEr-D, as COCO's evaluation computes them.

Sources: Papineni, Roukos, Ward, Zhu, "BLEU", ACL 2002; Vedantam, Zitnick, Parikh, "CIDEr",
CVPR 2015 (the D form, sigma 6, times 10); Chen et al., "Microsoft COCO Captions", 2015.
Tokens are lower-case words without punctuation, where COCO's tool runs a Java tokeniser.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

__all__ = ["bleu", "cider"]

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]


def bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]], order: int = 4) -> float:
    """Corpus BLEU up to n-grams of an order, 0 to 100, with the closest reference length.

    Args:
        captions: (N) words of each caption.
        references: (N) words of each reference, one or more per image.
        order: 4 for BLEU-4.
    """
    hits, totals, length, closest = [0] * order, [0] * order, 0, 0
    for caption, refs in zip(captions, references, strict=True):
        length += len(caption)
        closest += min((abs(len(ref) - len(caption)), len(ref)) for ref in refs)[1]
        for n in range(1, order + 1):
            own = _grams(caption, n)
            most: Grams = Counter()
            for ref in refs:
                most |= _grams(ref, n)
            hits[n - 1] += sum((own & most).values())
            totals[n - 1] += sum(own.values())
    if not all(hits):
        return 0.0
    mean = sum(math.log(hit / total) for hit, total in zip(hits, totals, strict=True)) / order
    return 100 * math.exp(mean + min(0.0, 1 - closest / length))


def cider(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """CIDEr-D of each image, (N,); the score of a corpus is the mean.

    Args:
        captions: (N) words of each caption.
        references: (N) words of each reference; how rare an n-gram is, is counted in them.
    """
    rarity: list[dict[tuple[str, ...], float]] = []
    for n in range(1, 5):
        seen: dict[tuple[str, ...], int] = defaultdict(int)
        for refs in references:
            for gram in {gram for ref in refs for gram in _grams(ref, n)}:
                seen[gram] += 1
        rarity.append({gram: math.log(len(references) / count) for gram, count in seen.items()})
    unseen = math.log(len(references))
    scores = np.zeros(len(captions))
    for image, (caption, refs) in enumerate(zip(captions, references, strict=True)):
        for n in range(1, 5):
            own = _grams(caption, n)
            for ref in refs:
                their = _grams(ref, n)
                scores[image] += _similarity(own, their, rarity[n - 1], unseen) * math.exp(
                    -((len(caption) - len(ref)) ** 2) / 72
                )
        scores[image] *= 10 / (4 * len(refs))
    return scores


def _grams(words: Words, n: int) -> Grams:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _similarity(
    own: Grams, their: Grams, rarity: dict[tuple[str, ...], float], unseen: float
) -> float:
    """Cosine of the tf-idf vectors, the caption's counts clipped to the reference's."""

    def weight(gram: tuple[str, ...], count: int) -> float:
        return count * rarity.get(gram, unseen)

    product = sum(
        weight(gram, min(count, their[gram])) * weight(gram, their[gram])
        for gram, count in own.items()
        if gram in their
    )
    norms = [
        math.sqrt(sum(weight(gram, count) ** 2 for gram, count in grams.items()))
        for grams in (own, their)
    ]
    return product / (norms[0] * norms[1]) if all(norms) else 0.0
