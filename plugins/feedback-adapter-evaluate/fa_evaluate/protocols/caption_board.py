"""The table of the caption protocol: what is known in each pass, and rows of what it gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.data.words import targets_for
from fa_evaluate.metrics import ranked
from fa_evaluate.protocols.caption_scores import Written
from fa_evaluate.rows import UNREFINED, Row
from feedback_adapter.errors import DataError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.captions import Captions
from feedback_adapter.evidence.labels import Labels
from feedback_adapter.evidence.text import Reliability, Text
from feedback_adapter.outputs import Outputs

__all__ = ["AS_CAPTION", "AS_TEXT", "LEFT_OUT", "CaptionBoard", "CaptionTruth", "Pass"]

LEFT_OUT = " of the caption left out"
"""What metrics end in where one caption is the only reference, and the words known are those of the
others."""

AS_CAPTION = ", from a caption"
"""What the name of a method ends in where a caption is known as `Captions`."""

AS_TEXT = ", from a caption as text"
"""What the name of a method ends in where a caption is known as `Text`."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """What is known in one pass over the images.

    Args:
        part: Words of all captions, words of all captions but one, or one caption in one of two
            forms.
        amount: How much is known, in percent of the words or of the captions.
        number: Of the draw, of the caption that is left out, or of the caption that is known.
        known: (words,) bool: which words are given; `None` where a caption is.
    """

    part: Literal["words", "left out", "caption", "text"]
    amount: float
    number: int
    known: Tensor | None = None

    def __str__(self) -> str:
        if self.part == "words":
            return f"{self.amount:g}% of the words known, draw {self.number + 1}"
        if self.part == "left out":
            return f"words of all captions but number {self.number + 1}"
        form = " as text" if self.part == "text" else ""
        return f"caption {self.number + 1} known{form}"

    @property
    def suffix(self) -> str:
        """What the name of a method ends in for this part."""
        return {"caption": AS_CAPTION, "text": AS_TEXT}.get(self.part, "")


class CaptionTruth:
    """The captions of the images and the words in them.

    Args:
        captions: (N) each image's captions, the same number of each, two or more.
        targets: (N, words) bool: which words an image's captions have.
        labels: The words.
        numbers: How many captions are left out, or known, in turn.

    Raises:
        DataError: The numbers of images, words or captions don't agree.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        targets: np.ndarray,
        labels: Sequence[str],
        numbers: int,
    ) -> None:
        if targets.shape != (len(captions), len(labels)):
            raise DataError(
                f"{len(captions)} images' captions and {len(labels)} words need targets "
                f"{(len(captions), len(labels))}, not {targets.shape}."
            )
        if len({len(own) for own in captions}) != 1 or len(captions[0]) < 2:
            raise DataError("Every image needs the same number of captions, two or more.")
        self.captions, self.targets = captions, targets
        self.numbers = range(min(numbers, len(captions[0])))
        self.share = 100 / len(captions[0])
        self.mentioned = [
            targets_for([[own[number]] for own in captions], labels) for number in self.numbers
        ]
        self.others = [
            targets_for([[c for i, c in enumerate(own) if i != number] for own in captions], labels)
            for number in self.numbers
        ]

    def passes(
        self, masks: Callable[[float], Iterable[np.ndarray]], amounts: Sequence[float]
    ) -> Iterator[Pass]:
        """Every pass over the images, in the order of the rows.

        Args:
            masks: For a share of the words, in percent, which words are given in each draw.
            amounts: The shares.
        """
        for amount in amounts:
            for number, mask in enumerate(masks(amount)):
                yield Pass("words", amount, number, torch.from_numpy(mask))
        every = torch.ones(self.targets.shape[1], dtype=torch.bool)
        yield from (Pass("left out", 100, number, every) for number in self.numbers)
        yield from (Pass("caption", self.share, number) for number in self.numbers)
        yield from (Pass("text", self.share, number) for number in self.numbers)

    def said(self, known: Pass) -> Tensor:
        """What a pass says of the words, (N, words) bool; only the known ones are used."""
        found = self.targets if known.part == "words" else self.others[known.number]
        return torch.from_numpy(found)

    def evidence(
        self, known: Pass, words: str, reliability: Reliability | None
    ) -> Callable[[Tensor], Evidence]:
        """What is known of the images of those numbers, (k,).

        Args:
            known: The pass.
            words: Name of the output of words.
            reliability: How far to trust a caption as `Text`.
        """
        if known.known is not None:
            said, mask = self.said(known), known.known
            return lambda rows: Labels.from_tensors(said[rows], mask, words)
        own = [captions[known.number] for captions in self.captions]
        if known.part == "caption":
            return lambda rows: Captions([own[i] for i in rows.tolist()])
        return lambda rows: Text([own[i] for i in rows.tolist()], reliability=reliability)


class CaptionBoard:
    """Scores every method on the same passes.

    Args:
        truth: Captions and words.
        unrefined: Outputs of the unrefined model.
        words: Name of the output of words.
        caption: Name of the output that writes captions.
        bootstrap: Resamples of the images.
        beams: Widths of the search for a caption; gains are of the first.
        checkpoint: Name to report.
    """

    def __init__(
        self,
        truth: CaptionTruth,
        unrefined: Outputs,
        words: str,
        caption: str,
        bootstrap: Bootstrap,
        beams: Sequence[int],
        checkpoint: str,
    ) -> None:
        self.truth, self.words, self.caption = truth, words, caption
        self.bootstrap, self.checkpoint = bootstrap, checkpoint
        self.written = Written(truth.captions, bootstrap, beams)
        self.left_out = [
            Written([[own[i]] for own in truth.captions], bootstrap, beams[:1], LEFT_OUT)
            for i in truth.numbers
        ]
        for scorer in (self.written, *self.left_out):
            scorer.compare_with(unrefined, caption)
        self.base = [self._ranks(unrefined, number) for number in truth.numbers]

    def unrefined_rows(self) -> list[Row]:
        """Rows of the model without evidence."""
        parts = [
            [self.written.unrefined],
            [scorer.unrefined for scorer in self.left_out],
            [self._named(found, number) for number, found in enumerate(self.base)],
        ]
        rows: list[Row] = []
        for draws in parts:
            rows += self.bootstrap.rows(self.checkpoint, UNREFINED, 0, draws, baseline=True)
        return rows

    def rows(
        self, name: str, answers: Iterable[tuple[Pass, Outputs]], *, uses: str, baseline: bool
    ) -> list[Row]:
        """Rows of a method, from its outputs in each pass."""
        found: dict[tuple[str, str, float], list[Mapping[str, np.ndarray]]] = {}
        for known, outputs in answers:
            key = (known.part, name + known.suffix, known.amount)
            found.setdefault(key, []).append(self._scores(known, outputs))
        rows: list[Row] = []
        for (_, method, amount), draws in found.items():
            rows += self.bootstrap.rows(
                self.checkpoint, method, amount, draws, uses=uses, baseline=baseline
            )
        return rows

    def _scores(self, known: Pass, outputs: Outputs) -> dict[str, np.ndarray]:
        if known.part == "words":
            return self.written(outputs, self.caption)
        if known.part == "left out":
            return self.left_out[known.number](outputs, self.caption)
        return self._named(self._ranks(outputs, known.number), known.number)

    def _ranks(self, outputs: Outputs, number: int) -> np.ndarray:
        """mAP of the words of the other captions that caption `number` doesn't mention."""
        said = self.truth.mentioned[number]
        # what was mentioned ranks last and counts as absent: the same as leaving it out
        scores = np.where(said, -np.inf, outputs[self.words].numpy())
        return self.bootstrap(ranked(scores, self.truth.others[number] & ~said))

    def _named(self, found: np.ndarray, number: int) -> dict[str, np.ndarray]:
        return {
            "mAP of words not mentioned": found,
            "mAP gain of words not mentioned": found - self.base[number],
        }
