"""Partial labels: part of an image's labels is known, the others are predicted.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.1 and Figure 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.methods import REFERENCE, strategies_of, uses_of
from fa_evaluate.passes import Case, Images, refine_all
from fa_evaluate.protocols.partial_scores import Board, Draw
from fa_evaluate.protocols.unknown_labels import Method
from fa_evaluate.request import Request
from fa_evaluate.rows import Row
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import DataError, ModelError, OptionsError
from feedback_adapter.evidence.labels import Labels

__all__ = ["Method", "PartialLabels", "measure"]

AMOUNTS = (25.0, 50.0, 75.0, 100.0)


@dataclasses.dataclass(frozen=True)
class PartialLabels:
    """The protocol: a random half of the labels may be known, the other half is scored.

    Args:
        known: Amounts of evidence, in percent of the known half, each 0 to 100.
        draws: Random draws of which labels are given, where not all are; at least 1.
        splits: How many random splits into halves, at least 1.
        flip: Also give all of the known half with this share of it wrong, in percent.
        seed: Of the splits into halves, of the draws and of what is wrong.
        batch: Images refined at a time, at least 1.
        samples: Resamples of the images for the intervals.
    """

    known: Sequence[float] = AMOUNTS
    draws: int = 5
    splits: int = 1
    flip: Sequence[float] = ()
    seed: int = 0
    batch: int = 64
    samples: int = 100

    def __post_init__(self) -> None:
        for name in ("known", "flip"):
            if any(not 0 <= share <= 100 for share in getattr(self, name)):
                found = list(getattr(self, name))
                raise OptionsError(f"{name}={found}: each must be 0 to 100 percent.")
        if min(self.draws, self.batch, self.splits) < 1:
            raise OptionsError(
                f"draws={self.draws}, batch={self.batch}, splits={self.splits}: each must be at "
                "least 1."
            )

    def halves(self, labels: int, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the labels that may be known, and of those that are scored."""
        order = np.random.default_rng(self.seed + number).permutation(labels)
        return np.sort(order[: labels // 2]), np.sort(order[labels // 2 :])

    def masks(self, labels: int, share: float, number: int = 0) -> Iterator[np.ndarray]:
        """(labels,) bool per draw: which labels are given."""
        may, _ = self.halves(labels, number)
        count = round(len(may) * share / 100)
        for draw in range(1 if count in (0, len(may)) else self.draws):
            seeds = [self.seed + number, round(share * 1000), draw]
            chosen = np.random.default_rng(seeds).permutation(may)
            mask = np.zeros(labels, dtype=bool)
            mask[chosen[:count]] = True
            yield mask

    def wrong(self, targets: np.ndarray, share: float, number: int = 0) -> np.ndarray:
        """(N, labels) bool: the truth with a share of it, in percent, turned round."""
        random = np.random.default_rng([self.seed + number, round(share * 1000)])
        return targets ^ (random.random(targets.shape) < share / 100)

    def draws_of(self, labels: int) -> list[Draw]:
        """Every pass over the images: amount by amount, then those with wrong evidence."""
        halves = [self.halves(labels, split)[1] for split in range(self.splits)]
        draws = [
            Draw(share, split, number, None, known, scored)
            for share in filter(None, self.known)  # with nothing known nothing is refined
            for split, scored in enumerate(halves)
            for number, known in enumerate(self.masks(labels, share, split))
        ]
        for share in self.flip:
            for split, scored in enumerate(halves):
                (known,) = self.masks(labels, 100, split)
                draws.append(Draw(100, split, 0, share, known, scored))
        return draws

    def said(self, targets: np.ndarray, draw: Draw) -> np.ndarray:
        """What a draw says of all labels, (N, labels) bool; only the known ones are used."""
        return targets if draw.wrong is None else self.wrong(targets, draw.wrong, draw.split)

    def run(
        self,
        adapter: Adapter,
        images: Images,
        targets: np.ndarray,
        strategies: Mapping[str, Mapping[str, Any]],
        *,
        others: Sequence[Method] = (),
        baseline: str | None = None,
        checkpoint: str = "model",
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Row]:
        """Measure strategies side by side on the same images and the same draws.

        Every batch of images goes through the model once. The refined probabilities are kept
        until the end: 4 bytes for each image, scored label, draw and strategy.

        Args:
            adapter: A model with one multilabel output.
            images: (N, channels, height, width), as the model takes them.
            targets: (N, labels) bool, the truth.
            strategies: Arguments of `Adapter.refine` for each, by the name to report. With
                `"wrong"` among them that is the argument of `Labels`; by default labels may be
                wrong, and how often is estimated for each image. The published forms (`REFERENCE`)
                believe what they are told.
            others: Methods of other kinds, reported before the strategies.
            baseline: Name of one of these: the gain over it is reported as well.
            checkpoint: Name to report.
            progress: Called with a note before each pass over a batch of images.

        Returns:
            Rows of the unrefined model, also calibrated if the adapter has a calibration, then
            of each method: mAP (0 to 100), its gain over the unrefined model, NLL (nats per
            unknown label), ECE, the share of images whose unknown labels are less likely than by
            the (calibrated) unrefined model, and milliseconds per image (of strategies only).

        Raises:
            DataError: The truth has another number of labels than the model.
        """
        count = len(adapter.labels)
        if targets.shape != (len(images), count):
            raise DataError(
                f"targets is {targets.shape}, but {len(images)} images and {count} labels "
                f"need {(len(images), count)}."
            )
        (output,) = adapter.outputs
        draws = self.draws_of(count)
        cases = [
            self._case(name, output, targets, draw, arguments)
            for name, arguments in strategies.items()
            for draw in draws
        ]
        before, answers = refine_all(adapter, images, cases, batch=self.batch, progress=progress)
        unrefined = before.value.probabilities()[output].numpy()
        calibrated = None
        if output in adapter.defaults.calibration:
            found = adapter.defaults.calibration[output]
            calibrated = (found["scale"] * before.value[output] + found["bias"]).sigmoid().numpy()
        board = self._board(unrefined, targets, checkpoint, baseline, calibrated)
        rows = board.unrefined_rows(before.seconds) + self._others(others, board, targets, progress)
        left = iter(answers)
        for name, arguments in strategies.items():
            own = [(answer.value.numpy(), answer.seconds) for answer in islice(left, len(draws))]
            published = name.endswith(REFERENCE)
            rows += board.rows(name, own, uses=uses_of(arguments, adapter), baseline=published)
        return rows

    def compare(
        self,
        methods: Sequence[Method],
        unrefined: np.ndarray,
        targets: np.ndarray,
        *,
        baseline: str | None = None,
        checkpoint: str = "model",
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Row]:
        """Measure methods of any kind; `run` is for those that are strategies.

        Args:
            methods: What to measure.
            unrefined: (N, labels), the unrefined model's probabilities.
            targets: (N, labels) bool, the truth.
            baseline: Name of one of them, which comes before those that aren't baselines: their
                gain over it is reported as well.
            checkpoint: Name to report.
            progress: Called with a note before each pass.

        Returns:
            See `run`.
        """
        board = self._board(unrefined, targets, checkpoint, baseline)
        return board.unrefined_rows() + self._others(methods, board, targets, progress)

    def _board(
        self,
        unrefined: np.ndarray,
        targets: np.ndarray,
        checkpoint: str,
        baseline: str | None,
        calibrated: np.ndarray | None = None,
    ) -> Board:
        bootstrap = Bootstrap(len(targets), self.samples, self.seed)
        count = targets.shape[1]
        scored = [self.halves(count, split)[1] for split in range(self.splits)]
        return Board(
            self.draws_of(count), scored, unrefined, targets, bootstrap,
            checkpoint=checkpoint, baseline=baseline, calibrated=calibrated,
        )  # fmt: skip

    def _others(
        self,
        methods: Sequence[Method],
        board: Board,
        targets: np.ndarray,
        progress: Callable[[str], None],
    ) -> list[Row]:
        def answers(method: Method) -> Iterator[tuple[np.ndarray, None]]:
            for draw in board.draws:
                progress(f"{method.name}, {draw}")
                yield method.predict(self.said(targets, draw), draw.known, draw.scored), None

        rows: list[Row] = []
        for method in methods:
            rows += board.rows(
                method.name, answers(method), uses=method.uses, baseline=method.baseline
            )
        return rows

    def _case(
        self,
        name: str,
        output: str,
        targets: np.ndarray,
        draw: Draw,
        arguments: Mapping[str, Any],
    ) -> Case:
        known, said = torch.from_numpy(draw.known), torch.from_numpy(self.said(targets, draw))
        wrong = arguments.get("wrong", 0.0 if name.endswith(REFERENCE) else None)
        return Case(
            f"{name}, {draw}",
            lambda rows: Labels.from_tensors(said[rows], known, wrong=wrong),
            {key: value for key, value in arguments.items() if key != "wrong"},
            read=lambda result: result.outputs_after.probabilities()[output][:, draw.scored],
        )


def measure(request: Request) -> list[Row]:
    """The protocol as `feedback-adapter evaluate` runs it.

    Raises:
        ModelError: The model hasn't one multilabel output.
    """
    adapter = request.adapter
    if len(adapter.outputs) > 1 or next(iter(adapter.outputs.values())).kind != "multilabel":
        raise ModelError("This protocol needs a model with one multilabel output.")
    protocol = PartialLabels(
        known=request.known or AMOUNTS, draws=request.draws, splits=request.splits,
        flip=request.flip, seed=request.seed, batch=request.batch,
    )  # fmt: skip
    labelled = request.labelled()
    return protocol.run(
        adapter, request.photos(labelled), labelled.targets, strategies_of(request),
        checkpoint=request.checkpoint, progress=request.progress,
    )  # fmt: skip
