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

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.methods import strategies_of, tier_of
from fa_evaluate.metrics import mean_average_precision, negative_log_likelihood
from fa_evaluate.protocols.unknown_labels import Method, UnknownLabels
from fa_evaluate.request import Request
from fa_evaluate.rows import PLAIN, Row
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import DataError, ModelError, OptionsError
from feedback_adapter.evidence.labels import Labels

__all__ = [
    "Method",
    "PartialLabels",
    "mean_average_precision",
    "measure",
    "negative_log_likelihood",
]

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
            raise OptionsError("draws and batch must be at least 1, and so must splits.")

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

    def run(
        self,
        adapter: Adapter,
        images: Tensor,
        targets: np.ndarray,
        strategies: Mapping[str, Mapping[str, Any]],
        *,
        checkpoint: str = "model",
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Row]:
        """Measure strategies side by side on the same images and the same draws.

        Args:
            adapter: A model with one multilabel output.
            images: (N, channels, height, width), as the model takes them.
            targets: (N, labels) bool, the truth.
            strategies: Arguments of `Adapter.refine` for each, by the name to report.
            checkpoint: Name to report.
            progress: Called with a note before each pass over the images.

        Returns:
            Rows of the plain model, then of each strategy: mAP (0 to 100), its gain over
            the plain model, NLL (nats per unknown label), ECE, the share of images whose
            likelihood fell, and milliseconds per image.

        Raises:
            DataError: The truth has another number of labels than the model.
        """
        count = len(adapter.labels)
        if targets.shape != (len(images), count):
            raise DataError(
                f"targets is {targets.shape}, but {len(images)} images and {count} labels "
                f"need {(len(images), count)}."
            )
        methods = [
            Method(
                name,
                lambda said, mask, scored, arguments=arguments: self._refined(
                    adapter, images, said, mask, arguments
                )[:, scored],
                tier_of(arguments),
                "reference" in name,
            )
            for name, arguments in strategies.items()
        ]
        progress(PLAIN)
        started = time.perf_counter()
        parts = [torch.as_tensor(adapter.predict(part)) for part in images.split(self.batch)]
        seconds = time.perf_counter() - started
        plain = torch.cat(parts).sigmoid().numpy()
        return self.compare(
            methods, plain, targets, seconds=seconds, checkpoint=checkpoint, progress=progress
        )

    def compare(
        self,
        methods: Sequence[Method],
        plain: np.ndarray,
        targets: np.ndarray,
        *,
        seconds: float = 0.0,
        rival: str | None = None,
        checkpoint: str = "model",
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Row]:
        """Measure methods of any kind; `run` is for those that are strategies.

        Args:
            methods: What to measure.
            plain: (N, labels), the plain model's probabilities.
            targets: (N, labels) bool, the truth.
            seconds: What the plain model took, if that is known.
            rival: Name of one of them, which comes before those that aren't baselines: their
                gain over it is reported as well.
            checkpoint: Name to report.
            progress: Called with a note before each pass.

        Returns:
            See `run`.
        """
        count = targets.shape[1]
        bootstrap = Bootstrap(len(targets), self.samples, self.seed)
        halves = [self.halves(count, number)[1] for number in range(self.splits)]
        scorers = [UnknownLabels(plain[:, own], targets[:, own], bootstrap) for own in halves]
        clock = self._clock(seconds, bootstrap) if seconds else {}
        own = [{**scorer.plain, **clock} for scorer in scorers]
        rows = bootstrap.rows(checkpoint, PLAIN, 0, own, baseline=True)
        best: dict[tuple[float, int, int], np.ndarray] = {}
        for method in methods:
            for share in filter(None, self.known):  # with nothing known all are the plain model
                draws: list[dict[str, np.ndarray]] = []
                for number, scored in enumerate(halves):
                    for draw, mask in enumerate(self.masks(count, share, number)):
                        progress(f"{method.name}, {share:g}% known, draw {draw + 1}")
                        started = time.perf_counter()
                        p = method.predict(targets, mask, scored)
                        clock = self._clock(time.perf_counter() - started, bootstrap)
                        found = scorers[number](p)
                        key = (share, number, draw)
                        if method.name == rival:
                            best[key] = found["mAP"]
                        elif key in best and not method.baseline:
                            found[f"mAP gain over {rival}"] = found["mAP"] - best[key]
                        draws.append({**found, **clock})
                rows += method.rows(bootstrap, checkpoint, share, draws)
            for share in self.flip:
                draws = []
                for number, scored in enumerate(halves):
                    progress(f"{method.name}, {share:g}% wrong")
                    (mask,) = self.masks(count, 100, number)
                    p = method.predict(self.wrong(targets, share, number), mask, scored)
                    found = scorers[number](p)
                    draws.append({f"{m}, {share:g}% wrong": found[m] for m in ("mAP", "mAP gain")})
                rows += method.rows(bootstrap, checkpoint, 100, draws)
        return rows

    def _clock(self, seconds: float, bootstrap: Bootstrap) -> dict[str, np.ndarray]:
        ms = seconds * 1e3 / bootstrap.images
        return {"ms per image": bootstrap(lambda _: ms)}

    def _refined(
        self,
        adapter: Adapter,
        images: Tensor,
        said: np.ndarray,
        mask: np.ndarray,
        arguments: Mapping[str, Any],
    ) -> np.ndarray:
        (output,) = adapter.outputs
        known, told = torch.from_numpy(mask), torch.from_numpy(said)
        parts: list[np.ndarray] = []
        for rows in torch.arange(len(images)).split(self.batch):
            evidence = Labels.from_tensors(told[rows], known)
            result = adapter.refine(images[rows], evidence, **arguments)
            parts.append(result.outputs_after.probabilities()[output].numpy())
        return np.concatenate(parts)


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
