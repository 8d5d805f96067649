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

__all__ = ["Cider", "bleu", "bleu_counts", "bleu_of", "cider"]

Words = Sequence[str]
Gram = tuple[str, ...]
Grams = Counter[Gram]


def bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]], order: int = 4) -> float:
    """Corpus BLEU up to n-grams of an order, 0 to 100, with the closest reference length.

    Args:
        captions: (N) words of each caption.
        references: (N) words of each reference, one or more per image.
        order: 4 for BLEU-4.
    """
    return bleu_of(bleu_counts(captions, references, order).sum(0))


def bleu_counts(
    captions: Sequence[Words], references: Sequence[Sequence[Words]], order: int = 4
) -> np.ndarray:
    """What `bleu_of` needs of each image, (N, 2 order + 2): their sum is a corpus's.

    Args:
        captions: See `bleu`.
        references: See `bleu`.
        order: See `bleu`.

    Returns:
        N-grams that a reference has, n-grams in all (each from n = 1 to the order), the
        caption's length and that of the closest reference.
    """
    counts = np.zeros((len(captions), 2 * order + 2))
    for row, caption, refs in zip(counts, captions, references, strict=True):
        for n in range(1, order + 1):
            own = _grams(caption, n)
            most: Grams = Counter()
            for ref in refs:
                most |= _grams(ref, n)
            row[n - 1] = sum((own & most).values())
            row[order + n - 1] = sum(own.values())
        row[-2] = len(caption)
        row[-1] = min((abs(len(ref) - len(caption)), len(ref)) for ref in refs)[1]
    return counts


def bleu_of(counts: np.ndarray) -> float:
    """BLEU of a corpus, 0 to 100, from the sum of its images' `bleu_counts`."""
    order = len(counts) // 2 - 1
    hits, totals, (length, closest) = counts[:order], counts[order:-2], counts[-2:].tolist()
    if not hits.all():
        return 0.0
    return 100 * math.exp(float(np.log(hits / totals).mean()) + min(0.0, 1 - closest / length))


def cider(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """CIDEr-D of each image, (N,); the score of a corpus is the mean.

    Args:
        captions: (N) words of each caption.
        references: (N) words of each reference; how rare an n-gram is, is counted in them.
    """
    return Cider(references)(captions)


class Cider:
    """CIDEr-D against references, whose n-grams are counted once.

    Args:
        references: See `cider`.
    """

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        seen: defaultdict[Gram, int] = defaultdict(int)
        each = [[_all_grams(ref) for ref in refs] for refs in references]
        for refs in each:
            for gram in {gram for ref in refs for grams in ref for gram in grams}:
                seen[gram] += 1
        self._unseen = math.log(len(references)) if references else 0.0
        self._rarity = {gram: self._unseen - math.log(count) for gram, count in seen.items()}
        self._references = [[self._weighted(ref) for ref in refs] for refs in each]
        self._lengths = [[len(ref) for ref in refs] for refs in references]

    def __call__(self, captions: Sequence[Words]) -> np.ndarray:
        """CIDEr-D of each image, (N,), of one caption each."""
        scores = np.zeros(len(captions))
        for image, (caption, refs, lengths) in enumerate(
            zip(captions, self._references, self._lengths, strict=True)
        ):
            own = self._weighted(_all_grams(caption))
            for ref, length in zip(refs, lengths, strict=True):
                alike = sum(_cosine(*pair) for pair in zip(own, ref, strict=True))
                scores[image] += alike * math.exp(-((len(caption) - length) ** 2) / 72)
            scores[image] *= 10 / (4 * len(refs))
        return scores

    def _weighted(self, grams: Sequence[Grams]) -> list[tuple[dict[Gram, float], float]]:
        """Of each n: tf-idf by n-gram, and its length."""
        found: list[tuple[dict[Gram, float], float]] = []
        for counts in grams:
            weights = {g: n * self._rarity.get(g, self._unseen) for g, n in counts.items()}
            found.append((weights, math.sqrt(sum(w * w for w in weights.values()))))
        return found


def _grams(words: Words, n: int) -> Grams:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _all_grams(words: Words) -> list[Grams]:
    return [_grams(words, n) for n in range(1, 5)]


def _cosine(own: tuple[dict[Gram, float], float], their: tuple[dict[Gram, float], float]) -> float:
    """Cosine of the tf-idf vectors, the caption's counts clipped to the reference's."""
    if not own[1] * their[1]:
        return 0.0
    product = sum(
        min(weight, their[0][gram]) * their[0][gram]
        for gram, weight in own[0].items()
        if gram in their[0]
    )
    return product / (own[1] * their[1])
