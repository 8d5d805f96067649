"""The table of the partial-labels protocol: what each draw makes known, and the rows of scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.protocols.unknown_labels import UnknownLabels
from fa_evaluate.rows import CALIBRATED, UNREFINED, Row

__all__ = ["Board", "Draw"]


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """What is known in one pass over the images.

    Args:
        share: How much is known, in percent of the half that may be known.
        split: Number of the split into halves.
        number: Number of the draw.
        wrong: Share of what is said that is wrong, in percent; `None` for a plain draw.
        known: (labels,) bool: which labels are given.
        scored: Indices of the labels that are predicted.
    """

    share: float
    split: int
    number: int
    wrong: float | None
    known: np.ndarray
    scored: np.ndarray

    def __str__(self) -> str:
        if self.wrong is not None:
            return f"{self.wrong:g}% wrong"
        return f"{self.share:g}% known, draw {self.number + 1}"

    @property
    def key(self) -> tuple[float, int, int]:
        """What draws of the same labels have in common."""
        return (self.share, self.split, self.number)


class Board:
    """Scores every method on the same draws, and keeps what gains are measured against.

    Args:
        draws: What is known in each pass, in the order of the answers that `rows` takes.
        scored: For each split into halves the indices of the labels that are predicted.
        unrefined: (N, labels), the unrefined model's probabilities.
        targets: (N, labels) bool, the truth.
        bootstrap: Resamples of the N images.
        checkpoint: Name to report.
        baseline: Name of a baseline; the gain over it is reported as well for methods that come
            after it and aren't baselines.
        calibrated: (N, labels), the unrefined model's probabilities, calibrated, if it is.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        scored: Sequence[np.ndarray],
        unrefined: np.ndarray,
        targets: np.ndarray,
        bootstrap: Bootstrap,
        *,
        checkpoint: str = "model",
        baseline: str | None = None,
        calibrated: np.ndarray | None = None,
    ) -> None:
        self.draws, self.bootstrap = draws, bootstrap
        self.checkpoint, self.baseline = checkpoint, baseline
        self._calibrated = None if calibrated is None else [calibrated[:, own] for own in scored]
        fair = self._calibrated or [None] * len(scored)
        self._scorers = [
            UnknownLabels(unrefined[:, own], targets[:, own], bootstrap, other)
            for own, other in zip(scored, fair, strict=True)
        ]
        self._best: dict[tuple[float, int, int], np.ndarray] = {}

    def unrefined_rows(self, seconds: float | None = None) -> list[Row]:
        """Rows of the model without evidence, which took so many seconds for all images."""
        own = [{**scorer.unrefined, **self._clock(seconds)} for scorer in self._scorers]
        rows = self.bootstrap.rows(self.checkpoint, UNREFINED, 0, own, baseline=True)
        if self._calibrated:
            pairs = zip(self._scorers, self._calibrated, strict=True)
            fair = [scorer(probabilities) for scorer, probabilities in pairs]
            rows += self.bootstrap.rows(self.checkpoint, CALIBRATED, 0, fair, baseline=True)
        return rows

    def rows(
        self,
        name: str,
        answers: Iterable[tuple[np.ndarray, float | None]],
        *,
        uses: str = "weights",
        baseline: bool = False,
    ) -> list[Row]:
        """Rows of a method.

        Args:
            name: See `Row`.
            answers: For each draw the probabilities (N, scored) and the seconds that they took,
                if that is to be reported.
            uses: See `Row`.
            baseline: See `Row`.
        """
        found: dict[tuple[float, bool], list[dict[str, np.ndarray]]] = {}
        for draw, (probabilities, seconds) in zip(self.draws, answers, strict=True):
            scores = self._scorers[draw.split](probabilities)
            if draw.wrong is not None:
                scores = {f"{m}, {draw.wrong:g}% wrong": scores[m] for m in ("mAP", "mAP gain")}
                found.setdefault((draw.wrong, True), []).append(scores)
                continue
            if name == self.baseline:
                self._best[draw.key] = scores["mAP"]
            elif draw.key in self._best and not baseline:
                gain = scores["mAP"] - self._best[draw.key]
                scores[f"mAP gain over {self.baseline}"] = gain
            scores |= self._clock(seconds)
            found.setdefault((draw.share, False), []).append(scores)
        rows: list[Row] = []
        for (amount, wrong), draws in found.items():
            rows += self.bootstrap.rows(
                self.checkpoint, name, 100 if wrong else amount, draws, uses=uses, baseline=baseline
            )
        return rows

    def _clock(self, seconds: float | None) -> Mapping[str, np.ndarray]:
        if seconds is None:
            return {}
        ms = seconds * 1e3 / self.bootstrap.images
        return {"ms per image": self.bootstrap(lambda _: ms)}
