"""Text: some of an image's captions are known, words of a caption left out are predicted.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.3, where the text
is a news article; here it is one to four of an image's five captions. Each caption is a piece of
evidence of its own, so that a word that three of them mention counts three times.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fa_evaluate import data as readers
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.data.words import targets_for
from fa_evaluate.methods import ALONE, REFERENCE, strategies_of, uses_of
from fa_evaluate.passes import Case, Images, both, refine_all
from fa_evaluate.protocols.unknown_labels import UnknownLabels
from fa_evaluate.request import Request
from fa_evaluate.rows import UNREFINED, Row
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import DataError, OptionsError
from feedback_adapter.evidence.base import All, Evidence
from feedback_adapter.evidence.text import Reliability, Text

__all__ = [
    "BAYES",
    "TextNearby",
    "evidence_of",
    "fit_reliability",
    "measure",
    "others",
]

BAYES = "Bayes' rule per word"
"""Name of the baseline: each word's own mention counts, nothing else is learned from it."""


@dataclasses.dataclass(frozen=True)
class TextNearby:
    """The protocol: the words of a caption are unknown, some of the other four are the text.

    Args:
        amounts: How many captions are known.
        draws: Which captions are left out: the first so many in turn.
        batch: Images at a time.
        seed: Of the resamples.
        samples: Resamples of the images for the intervals.

    Raises:
        OptionsError: A number out of range.
    """

    amounts: Sequence[int] = (1, 2, 3, 4)
    draws: int = 3
    batch: int = 64
    seed: int = 0
    samples: int = 100

    def __post_init__(self) -> None:
        if not self.amounts or min(self.amounts) < 1 or self.draws < 1 or self.batch < 1:
            raise OptionsError("amounts, draws and batch must be at least 1.")

    def run(
        self,
        adapter: Adapter,
        images: Images,
        captions: Sequence[Sequence[str]],
        methods: Mapping[str, Mapping[str, Any]],
        *,
        reliability: Reliability | None = None,
        checkpoint: str = "model",
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Row]:
        """Measure methods side by side, and Bayes' rule per word.

        Args:
            adapter: A multilabel model of caption words.
            images: (N, channels, height, width), as the model takes them.
            captions: (N) captions of each, more than the largest amount.
            methods: Arguments of `Adapter.refine` by name, and `absent` (see `Text`). Each is
                reported with Bayes' rule on what it gave (`Text.clamp`), and alone.
            reliability: How far to trust a caption; see `fit_reliability`.
            checkpoint: Name to report.
            progress: Called with a note before each pass.

        Returns:
            Rows as of `PartialLabels.run`; `known` is the number of captions, and all words
            of the vocabulary are scored.

        Raises:
            DataError: An image has too few captions.
        """
        fewest = min(map(len, captions), default=0)
        if fewest <= max(self.amounts) or fewest < self.draws:
            raise DataError(
                f"An image has {fewest} captions: to leave one of {self.draws} out and know "
                f"{max(self.amounts)} of the others there must be more."
            )
        (output,) = adapter.outputs

        @functools.cache
        def known(amount: int, left_out: int, absent: float) -> Evidence:
            texts = others(captions, left_out, amount)
            evidence = evidence_of(texts, reliability, absent)
            return evidence.bind(adapter.outputs, len(captions))

        passes = [
            (amount, left_out, name)
            for amount in self.amounts
            for left_out in range(self.draws)
            for name in methods
        ]
        cases: list[Case] = []
        for amount, left_out, name in passes:
            note = f"{name}, {amount} captions, without number {left_out + 1}"
            rest = dict(methods[name])
            evidence = known(amount, left_out, rest.pop("absent", 1.0))
            cases.append(Case(note, evidence.take, rest, read=lambda result: both(result, output)))
        before, answers = refine_all(adapter, images, cases, batch=self.batch, progress=progress)
        refined = dict(zip(passes, answers, strict=True))
        bootstrap = Bootstrap(len(captions), self.samples, self.seed)
        probabilities = before.value.probabilities()[output].numpy()
        scorers = [
            UnknownLabels(
                probabilities,
                targets_for([[own[left_out]] for own in captions], adapter.labels),
                bootstrap,
            )
            for left_out in range(self.draws)
        ]
        rows = bootstrap.rows(
            checkpoint, UNREFINED, 0, [scorer.unrefined for scorer in scorers], baseline=True
        )
        for amount in self.amounts:
            found: dict[str, list[dict[str, np.ndarray]]] = {}
            for left_out, scorer in enumerate(scorers):
                ruled = known(amount, left_out, 1.0).clamp(before.value)[output]
                found.setdefault(BAYES, []).append(scorer(ruled.sigmoid().numpy()))
                for name in methods:
                    answer = refined[amount, left_out, name]
                    ms = answer.seconds * 1e3 / len(captions)
                    clock = bootstrap(lambda _, ms=ms: ms)
                    after, alone = answer.value.sigmoid().unbind(1)
                    draw = {**scorer(after.numpy()), "ms per image": clock}
                    found.setdefault(name, []).append(draw)
                    found.setdefault(name + ALONE, []).append(scorer(alone.numpy()))
            for name, draws in found.items():
                own = methods.get(name.removesuffix(ALONE))
                rows += bootstrap.rows(
                    checkpoint, name, amount, draws,
                    uses="weights" if own is None else uses_of(own, adapter),
                    baseline=own is None or REFERENCE in name,
                )  # fmt: skip
        return rows


def others(captions: Sequence[Sequence[str]], left_out: int, amount: int) -> list[list[str]]:
    """The text: for each of the first captions but one, that of every image."""
    rest = [[c for place, c in enumerate(own) if place != left_out] for own in captions]
    return [[own[number] for own in rest] for number in range(amount)]


def evidence_of(
    texts: Sequence[Sequence[str]], reliability: Reliability | None = None, absent: float = 1.0
) -> Evidence:
    """Captions as evidence, each for itself: what `others` gives, see `Text`."""
    return All([Text(text, reliability=reliability, absent=absent) for text in texts])


def fit_reliability(captions: Sequence[Sequence[str]], labels: Sequence[str]) -> Reliability:
    """How often a word of the last caption is in the first, on training captions."""
    truth = torch.from_numpy(targets_for([own[-1:] for own in captions], labels))
    return Reliability.fit([own[0] for own in captions], truth, labels)


def measure(request: Request) -> list[Row]:
    """The protocol as `feedback-adapter evaluate` runs it.

    How far text can be trusted is counted on the captions of the training split, where there
    is one.
    """
    adapter = request.adapter
    everything = readers.read_captions(request.data, request.what)
    chosen = everything.subset(request.split, request.limit)
    amounts = tuple(int(amount) for amount in request.known) or (1, 2, 3, 4)
    train = everything.of_split("train")
    trust = fit_reliability(train, adapter.labels) if train else None
    protocol = TextNearby(amounts, min(request.draws, 5), request.batch, request.seed)
    return protocol.run(
        adapter, request.photos(chosen), chosen.captions, strategies_of(request),
        reliability=trust, checkpoint=request.checkpoint, progress=request.progress,
    )  # fmt: skip
