"""One run of the caption protocol: the data, the plain model's answers, how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fa_evaluate.baselines.caption_neighbours import Neighbours
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.data.words import targets_for
from fa_evaluate.metrics import ranked
from fa_evaluate.protocols.caption_scores import Written
from fa_evaluate.rows import PLAIN, Row
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import DataError, ModelError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.captions import Captions
from feedback_adapter.evidence.text import Text
from feedback_adapter.outputs import Outputs

if TYPE_CHECKING:
    from fa_evaluate.protocols.caption import CaptionProtocol

__all__ = ["LEFT_OUT", "CaptionRun", "outputs_of"]

LEFT_OUT = " of the caption left out"
"""What metrics end in where one caption is the only reference, and the words known are those
of the others."""


class CaptionRun:
    """See `CaptionProtocol.run` for the arguments and the errors."""

    def __init__(
        self,
        protocol: CaptionProtocol,
        adapter: Adapter,
        images: Tensor,
        captions: Sequence[Sequence[str]],
        targets: np.ndarray,
        checkpoint: str,
        progress: Callable[[str], None],
    ) -> None:
        self.protocol, self.adapter, self.images = protocol, adapter, images
        self.captions, self.targets, self.checkpoint = captions, targets, checkpoint
        self.progress = progress
        self.words, self.caption = outputs_of(adapter)
        self.labels = adapter.outputs[self.words].labels
        self.numbers = range(min(protocol.draws, len(captions[0]) if captions else 0))
        if targets.shape != (len(images), len(self.labels)) or len(captions) != len(images):
            raise DataError(
                f"{len(images)} images and {len(self.labels)} words need as many captions, not "
                f"{len(captions)}, and targets {(len(images), len(self.labels))}, not "
                f"{targets.shape}."
            )
        if len({len(own) for own in captions}) != 1 or len(captions[0]) < 2:
            raise DataError("Every image needs the same number of captions, two or more.")
        self.bootstrap = Bootstrap(len(images), protocol.samples, protocol.seed)
        progress(PLAIN)
        parts = [adapter.predict(part) for part in images.split(protocol.batch)]
        logits = {n: torch.cat([part[n] for part in parts]) for n in adapter.outputs}  # pyright: ignore
        self.plain = Outputs(logits, adapter.outputs)
        self.written = Written(captions, self.bootstrap, protocol.beams)
        self.left_out = [
            Written([[own[i]] for own in captions], self.bootstrap, protocol.beams[:1], LEFT_OUT)
            for i in self.numbers
        ]
        for scorer in (self.written, *self.left_out):
            scorer.compare_with(self.plain, self.caption)
        self.others = [self._others(number) for number in self.numbers]
        self.base = [self._ranks(self.plain, i) for i in self.numbers]

    def plain_rows(self) -> list[Row]:
        """Rows of the model without evidence."""
        parts = [[self.written.plain], [s.plain for s in self.left_out], self._named(self.base)]
        rows: list[Row] = []
        for draws in parts:
            rows += self.bootstrap.rows(self.checkpoint, PLAIN, 0, draws, baseline=True)
        return rows

    def words_known(
        self, name: str, answer: Callable[[Tensor, Tensor], Outputs], tier: str, baseline: bool
    ) -> list[Row]:
        """Rows of parts 1 and 2; `answer` is told words (N, words) and which are known."""
        rows: list[Row] = []
        told = torch.from_numpy(self.targets)
        for share in self.protocol.known:
            draws: list[dict[str, np.ndarray]] = []
            for mask in self.protocol.masks(len(self.labels), share):
                self.progress(f"{name}, {share:g}% of the words known, draw {len(draws) + 1}")
                draws.append(self.written(answer(told, torch.from_numpy(mask)), self.caption))
            rows += self._rows(name, share, draws, tier, baseline)
        every = torch.ones(len(self.labels), dtype=torch.bool)
        draws = []
        for number in self.numbers:
            self.progress(f"{name}, words of all captions but number {number + 1}")
            found = answer(torch.from_numpy(self.others[number]), every)
            draws.append(self.left_out[number](found, self.caption))
        return rows + self._rows(name, 100, draws, tier, baseline)

    def caption_known(
        self, name: str, arguments: Mapping[str, Any], tier: str, baseline: bool
    ) -> list[Row]:
        """Rows of part 3."""
        rows: list[Row] = []
        kinds: dict[str, Callable[[list[str]], Evidence]] = {
            f"{name}, told a caption": lambda texts: Captions(list(texts)),
            f"{name}, told a caption as text": lambda texts: Text(
                texts, reliability=self.protocol.reliability
            ),
        }
        for method, evidence in kinds.items():
            draws: list[np.ndarray] = []
            for number in self.numbers:
                self.progress(f"{method}, caption {number + 1} known")
                own = [captions[number] for captions in self.captions]
                found = self.refined(
                    lambda part, own=own, make=evidence: make([own[i] for i in part.tolist()]),
                    arguments,
                )
                draws.append(self._ranks(found, number))
            share = 100 / len(self.captions[0])
            rows += self._rows(method, share, self._named(draws), tier, baseline)
        return rows

    def refined(
        self, evidence: Callable[[Tensor], Evidence], arguments: Mapping[str, Any]
    ) -> Outputs:
        """What a strategy says, told the evidence for the images of each part."""
        parts: list[Outputs] = []
        for part in torch.arange(len(self.images)).split(self.protocol.batch):
            result = self.adapter.refine(self.images[part], evidence(part), **arguments)
            parts.append(result.outputs_after)
        logits = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Outputs(logits, self.adapter.outputs)

    def rival(self, rival: Neighbours, told: Tensor, known: Tensor) -> Outputs:
        """What a rival's image vectors are."""
        return self.plain.replace(**{self.caption: rival(self.plain[self.caption], told, known)})

    def _rows(
        self,
        name: str,
        known: float,
        draws: Sequence[Mapping[str, np.ndarray]],
        tier: str,
        baseline: bool,
    ) -> list[Row]:
        return self.bootstrap.rows(
            self.checkpoint, name, known, draws, tier=tier, baseline=baseline
        )

    def _others(self, number: int) -> np.ndarray:
        rest = [[c for i, c in enumerate(own) if i != number] for own in self.captions]
        return targets_for(rest, self.labels)

    def _ranks(self, outputs: Outputs, number: int) -> np.ndarray:
        """mAP of the words of the other captions that caption `number` doesn't mention."""
        said = targets_for([[own[number]] for own in self.captions], self.labels)
        # what was mentioned ranks last and counts as absent: the same as leaving it out
        scores = np.where(said, -np.inf, outputs[self.words].numpy())
        return self.bootstrap(ranked(scores, self.others[number] & ~said))

    def _named(self, draws: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        return [
            {"mAP of words not mentioned": found, "mAP gain of words not mentioned": found - base}
            for found, base in zip(draws, self.base, strict=True)
        ]


def outputs_of(adapter: Adapter) -> tuple[str, str]:
    """Names of the output of words and of that of captions."""
    words = [name for name, spec in adapter.outputs.items() if spec.kind == "multilabel"]
    writers = [name for name, spec in adapter.outputs.items() if spec.decoder is not None]
    if len(words) != 1 or len(writers) != 1:
        raise ModelError(
            "This protocol needs a model with one multilabel output of words and one 'tokens' "
            f"output with a decoder; {list(adapter.outputs)} has {words} and {writers}."
        )
    return words[0], writers[0]
