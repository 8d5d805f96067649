"""Captions: words known and the caption unknown, and one caption known and the words unknown.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.4: objects known,
caption unknown. There objects were annotated apart from captions. Here the words are those of
the captions, so part of the gain is that the reference's own words were given; the words of
some captions are therefore also measured against a caption that was left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fa_evaluate.baselines.caption_neighbours import Neighbours
from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.data.flickr8k import read_captions
from fa_evaluate.methods import REFERENCE, strategies_of, uses_of
from fa_evaluate.passes import Case, Images, refine_all
from fa_evaluate.protocols.caption_board import CaptionBoard, CaptionTruth
from fa_evaluate.request import Request
from fa_evaluate.rows import Row
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import DataError, ModelError, OptionsError
from feedback_adapter.evidence.text import Reliability

__all__ = ["CaptionProtocol", "measure", "outputs_of"]

AMOUNTS = (25.0, 50.0, 75.0, 100.0)


@dataclasses.dataclass(frozen=True)
class CaptionProtocol:
    """The protocol, in three parts.

    1. Of a share of all words it is known whether the image's captions have them; captions
       are written, and compared with all of the image's captions.
    2. Of all words it is known whether the captions but one have them; the one that was left
       out is the reference.
    3. One caption is known, as `Captions` (and as `Text`, for comparison); how well the words
       of the other captions are ranked, those apart that the known caption mentions.

    Args:
        known: Shares of all words that are given in part 1, in percent, each above 0 to 100.
        draws: Random draws of which words are given, where not all are; and how many
            captions are left out, or known, in turn. At least 1.
        beams: Widths of the search for a caption; 1 is greedy. Gains are of the first.
        seed: Of the draws and the resamples.
        batch: Images refined at a time, at least 1.
        samples: Resamples of the images for the intervals.
        reliability: How far to trust a known caption as `Text`.

    Raises:
        OptionsError: A value is out of its range.
    """

    known: Sequence[float] = AMOUNTS
    draws: int = 3
    beams: Sequence[int] = (3, 1)
    seed: int = 0
    batch: int = 64
    samples: int = 200
    reliability: Reliability | None = None

    def __post_init__(self) -> None:
        if any(not 0 < share <= 100 for share in self.known):
            raise OptionsError(f"known={list(self.known)}: each must be above 0, to 100 percent.")
        if min(self.draws, self.batch, *self.beams) < 1 or not self.beams:
            raise OptionsError("draws, batch and every one of beams must be at least 1.")

    def masks(self, words: int, share: float) -> Iterator[np.ndarray]:
        """(words,) bool per draw: which words are given."""
        count = max(1, round(words * share / 100))
        for draw in range(1 if count == words else self.draws):
            seeds = [self.seed, round(share * 1000), draw]
            mask = np.zeros(words, dtype=bool)
            mask[np.random.default_rng(seeds).permutation(words)[:count]] = True
            yield mask

    def run(
        self,
        adapter: Adapter,
        images: Images,
        captions: Sequence[Sequence[str]],
        targets: np.ndarray,
        strategies: Mapping[str, Mapping[str, Any]],
        progress: Callable[[str], None] = lambda _: None,
        *,
        checkpoint: str = "model",
        baselines: Mapping[str, Neighbours] | None = None,
    ) -> list[Row]:
        """Measure strategies side by side on the same images and the same draws.

        Args:
            adapter: A model with a multilabel output of words and one that writes captions.
            images: (N, channels, height, width), as the model takes them.
            captions: (N) each image's captions, the same number of each, two or more.
            targets: (N, words) bool: which words an image's captions have.
            strategies: Arguments of `Adapter.refine` for each, by the name to report.
            progress: Called with a note before each pass over a batch of images.
            checkpoint: Name to report.
            baselines: Methods without feedback, by the name to report.

        Returns:
            Rows of the unrefined model, the baselines and each strategy. Parts 1 and 2: CIDEr-D
            (as COCO's evaluation gives it, about 0 to 1), BLEU-4 (0 to 100) and their gains over
            the unrefined model; `known` in percent of the words. Part 3: mAP (0 to 100); `known`
            in percent of the captions.

        Raises:
            DataError: The truth doesn't fit the model or the images.
            ModelError: The model lacks one of the two outputs.
        """
        words, caption = outputs_of(adapter)
        labels = adapter.outputs[words].labels
        if len(images) != len(captions):
            raise DataError(f"{len(images)} images, but captions of {len(captions)}.")
        truth = CaptionTruth(captions, targets, labels, self.draws)
        passes = list(truth.passes(lambda share: self.masks(len(labels), share), self.known))
        cases = [
            Case(f"{name}, {known}", truth.evidence(known, words, self.reliability), arguments)
            for name, arguments in strategies.items()
            for known in passes
        ]
        before, answers = refine_all(adapter, images, cases, batch=self.batch, progress=progress)
        progress("writing captions")
        bootstrap = Bootstrap(len(images), self.samples, self.seed)
        board = CaptionBoard(truth, before.value, words, caption, bootstrap, self.beams, checkpoint)
        rows = board.unrefined_rows()
        for name, vectors in (baselines or {}).items():
            progress(f"{name}, writing captions")
            own = before.value[caption]
            found = (
                (known, before.value.replace(**{caption: vectors(own, truth.said(known), mask)}))
                for known in passes
                if (mask := known.known) is not None
            )
            rows += board.rows(name, found, uses="statistics", baseline=True)
        outputs = iter(answers)
        for name, arguments in strategies.items():
            progress(f"{name}, writing captions")
            rows += board.rows(
                name,
                ((known, next(outputs).value) for known in passes),
                uses=uses_of(arguments, adapter),
                baseline=name.endswith(REFERENCE),
            )
        return rows


def measure(request: Request) -> list[Row]:
    """The protocol as `feedback-adapter evaluate` runs it.

    Raises:
        DataError: The folder has no captions.
        ModelError: The model doesn't write captions.
    """
    words, _ = outputs_of(request.adapter)
    protocol = CaptionProtocol(
        known=request.known or AMOUNTS, draws=request.draws, seed=request.seed, batch=request.batch
    )
    labelled = request.labelled(words)
    texts = read_captions(request.data)
    of = dict(zip(texts.names, texts.captions, strict=True))
    return protocol.run(
        request.adapter, request.photos(labelled), [of[name] for name in labelled.names],
        labelled.targets, strategies_of(request), request.progress,
        checkpoint=request.checkpoint,
    )  # fmt: skip


def outputs_of(adapter: Adapter) -> tuple[str, str]:
    """Names of the output of words and of the output that writes captions.

    Raises:
        ModelError: The model doesn't have one of each.
    """
    words = [name for name, spec in adapter.outputs.items() if spec.kind == "multilabel"]
    writers = [name for name, spec in adapter.outputs.items() if spec.decoder is not None]
    if len(words) != 1 or len(writers) != 1:
        raise ModelError(
            "This protocol needs a model with one multilabel output of words and one 'tokens' "
            f"output with a decoder; {list(adapter.outputs)} has {words} and {writers}."
        )
    return words[0], writers[0]
