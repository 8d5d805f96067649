"""Rows with intervals: every score is taken on the same resampled images (paired bootstrap)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fa_evaluate.metrics import Score
from fa_evaluate.rows import Row

__all__ = ["Bootstrap"]


class Bootstrap:
    """Resamples of the same images for all methods of a protocol.

    Args:
        images: N.
        samples: Resamples; 0 for none, intervals are then the value itself.
        seed: Of the resamples.
    """

    def __init__(self, images: int, samples: int = 200, seed: int = 0) -> None:
        self.images = images
        random = np.random.default_rng(seed)
        self.counts = random.multinomial(images, np.full(images, 1 / images), size=samples)

    def __call__(self, score: Score) -> np.ndarray:
        """The score of all images, then of each resample, (1 + samples,)."""
        return np.array([score(None), *(score(counts) for counts in self.counts)])

    def rows(
        self,
        checkpoint: str,
        method: str,
        known: float,
        draws: Sequence[Mapping[str, np.ndarray]],
        *,
        uses: str = "weights",
        baseline: bool = False,
    ) -> list[Row]:
        """One row per metric, from what `__call__` gave for each draw.

        Intervals are centred on the value: an image that was drawn twice ranks beside itself,
        which biases precision (and calibration error) upwards in all resamples alike.

        Args:
            checkpoint: See `Row`.
            method: See `Row`.
            known: See `Row`.
            draws: For each draw, (1 + samples,) by metric.
            uses: See `Row`.
            baseline: See `Row`.
        """
        rows: list[Row] = []
        for metric in draws[0]:
            found = np.stack([draw[metric] for draw in draws])
            mean = found.mean(0)
            value = float(mean[0])
            around = mean[1:] + (value - mean[1:].mean()) if len(mean) > 1 else mean
            low, high = np.percentile(around, [2.5, 97.5]).tolist()
            spread = float(found[:, 0].std(ddof=1)) if len(found) > 1 else 0.0
            row = Row(
                checkpoint,
                method,
                uses,
                baseline,
                known,
                metric,
                value,
                spread,
                low,
                high,
                self.images,
            )
            rows.append(row)
        return rows
