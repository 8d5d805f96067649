"""Partial labels: part of an image's labels is known, the others are predicted.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.1 and Figure 4.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import DataError, OptionsError
from feedback_adapter.evidence.labels import Labels

__all__ = ["PartialLabels", "Row", "mean_average_precision"]


@dataclasses.dataclass(frozen=True)
class Row:
    """What one strategy scores with one amount of evidence.

    Args:
        strategy: Its name; `"none"` is the plain model.
        known: Share of the known half that is given, in percent.
        map: Mean average precision over the unknown labels, 0 to 100, mean over draws.
        map_sd: Its standard deviation over draws (0 for a single draw).
        nll: Negative log-likelihood of an unknown label, mean over all, in nats.
        share_worse: Share of images whose likelihood of the unknown labels fell, 0 to 1.
        ms_per_image: Time of `refine` per image, in milliseconds.
    """

    strategy: str
    known: float
    map: float
    map_sd: float
    nll: float
    share_worse: float
    ms_per_image: float


@dataclasses.dataclass(frozen=True)
class PartialLabels:
    """The protocol: a random half of the labels may be known, the other half is scored.

    Args:
        known: Amounts of evidence, in percent of the known half, each 0 to 100.
        draws: Random draws of which labels are given, where not all are; at least 1.
        seed: Of the split into halves, and of the draws.
        batch: Images refined at a time, at least 1.
    """

    known: Sequence[float] = (0, 25, 50, 75, 100)
    draws: int = 5
    seed: int = 0
    batch: int = 64

    def __post_init__(self) -> None:
        if any(not 0 <= share <= 100 for share in self.known):
            raise OptionsError(f"known={list(self.known)}: each must be 0 to 100 percent.")
        if self.draws < 1 or self.batch < 1:
            raise OptionsError("draws and batch must be at least 1.")

    def halves(self, labels: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the labels that may be known, and of those that are scored."""
        order = np.random.default_rng(self.seed).permutation(labels)
        return np.sort(order[: labels // 2]), np.sort(order[labels // 2 :])

    def masks(self, labels: int, share: float) -> Iterator[np.ndarray]:
        """(labels,) bool per draw: which labels are given."""
        may, _ = self.halves(labels)
        count = round(len(may) * share / 100)
        for draw in range(1 if count in (0, len(may)) else self.draws):
            chosen = np.random.default_rng([self.seed, round(share * 1000), draw]).permutation(may)
            mask = np.zeros(labels, dtype=bool)
            mask[chosen[:count]] = True
            yield mask

    def run(
        self,
        adapter: Adapter,
        images: Tensor,
        targets: np.ndarray,
        strategies: Mapping[str, Mapping[str, Any]],
        *,
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Row]:
        """Measure strategies side by side on the same images and the same draws.

        Args:
            adapter: A multilabel model.
            images: (N, channels, height, width), as the model takes them.
            targets: (N, labels) bool, the truth.
            strategies: Arguments of `Adapter.refine` for each, by the name to report.
            progress: Called with a note before each pass over the images.

        Raises:
            DataError: The truth has another number of labels than the model.
        """
        count = len(adapter.labels)
        if targets.shape != (len(images), count):
            raise DataError(
                f"targets is {targets.shape}, but {len(images)} images and {count} labels "
                f"need {(len(images), count)}."
            )
        _, scored = self.halves(count)
        progress("none")
        started = time.perf_counter()
        plain = np.concatenate(
            [adapter.predict(part).sigmoid().numpy() for part in images.split(self.batch)]  # pyright: ignore
        )
        ms = (time.perf_counter() - started) * 1e3 / len(images)
        base = self._row("none", 0, [plain], plain, targets, scored, ms)
        rows = [base]
        for name, arguments in strategies.items():
            for share in self.known:
                if share == 0:  # nothing known: every strategy returns the plain model's answer
                    rows.append(dataclasses.replace(base, strategy=name))
                    continue
                started, results = time.perf_counter(), []
                for draw, mask in enumerate(self.masks(count, share)):
                    progress(f"{name}, {share:g}% known, draw {draw + 1}")
                    results.append(self._refined(adapter, images, targets, mask, arguments))
                seconds = time.perf_counter() - started
                ms = seconds * 1e3 / len(images) / len(results)
                rows.append(self._row(name, share, results, plain, targets, scored, ms))
        return rows

    def _refined(
        self,
        adapter: Adapter,
        images: Tensor,
        targets: np.ndarray,
        mask: np.ndarray,
        arguments: Mapping[str, Any],
    ) -> np.ndarray:
        known, truth = torch.from_numpy(mask), torch.from_numpy(targets)
        parts: list[np.ndarray] = []
        for rows in torch.arange(len(images)).split(self.batch):
            evidence = Labels.from_tensors(truth[rows], known)
            result = adapter.refine(images[rows], evidence, **arguments)
            parts.append(result.outputs_after.probabilities()["output"].numpy())
        return np.concatenate(parts)

    def _row(
        self,
        name: str,
        share: float,
        results: list[np.ndarray],
        plain: np.ndarray,
        targets: np.ndarray,
        scored: np.ndarray,
        ms: float,
    ) -> Row:
        truth = targets[:, scored]
        base = negative_log_likelihood(plain[:, scored], truth).mean(1)
        maps = [mean_average_precision(p[:, scored], truth) for p in results]
        losses = [negative_log_likelihood(p[:, scored], truth).mean(1) for p in results]
        return Row(
            strategy=name,
            known=share,
            map=float(np.mean(maps)),
            map_sd=float(np.std(maps, ddof=1)) if len(maps) > 1 else 0.0,
            nll=float(np.mean(losses)),
            share_worse=float(np.mean([loss > base + 1e-9 for loss in losses])),
            ms_per_image=ms,
        )


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over labels of average precision, 0 to 100; labels without a positive don't count.

    Args:
        scores: (N, labels), any monotone score.
        truth: (N, labels) bool.
    """
    from sklearn.metrics import average_precision_score

    there = truth.any(0)
    if not there.any():
        raise DataError("No label has a positive image: average precision isn't defined.")
    return 100 * float(average_precision_score(truth[:, there], scores[:, there], average="macro"))


def negative_log_likelihood(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """-log p(truth), elementwise, in nats; probabilities are kept 1e-7 away from 0 and 1."""
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.where(truth, np.log(p), np.log1p(-p))
