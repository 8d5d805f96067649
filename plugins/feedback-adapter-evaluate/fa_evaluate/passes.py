"""One pass over the images for everything that is measured: each batch is prepared once.

A batch goes through the model once and is kept; every strategy and every draw of what is known then
costs the model's tail only. So a protocol first says all that it wants to know, as cases, and gets
all answers at the end.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from feedback_adapter.adapter import Adapter
from feedback_adapter.batches import in_batches, join, split
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Outputs
from feedback_adapter.prepared import Prepared
from feedback_adapter.refinement import Refinement

__all__ = ["Answer", "Case", "Images", "both", "refine_all", "unrefined_logits"]


class Images(Protocol):
    """Images by number: a tensor (N, channels, height, width), or `fa_evaluate.request.Photos`."""

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: Any, /) -> Tensor:
        """The images of those numbers (k,), as the model takes them."""
        ...


@dataclasses.dataclass(frozen=True)
class Case:
    """One way of refining all images.

    Args:
        name: What progress notes call it.
        evidence: Gives what is known of the images of those numbers, (k,).
        arguments: Of `Adapter.refine`.
        read: What to keep of the result: outputs or a tensor (k, ...). By default the outputs
            after refinement.
    """

    name: str
    evidence: Callable[[Tensor], Evidence]
    arguments: Mapping[str, Any]
    read: Callable[[Refinement], Any] = lambda result: result.outputs_after


def both(result: Refinement, output: str) -> Tensor:
    """What is after refinement, and what the network alone says: (k, 2, labels)."""
    return torch.stack([result.outputs_after[output], result.outputs_refined[output]], 1)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came of a case.

    Args:
        value: What the case reads of the outputs, of all images.
        seconds: What it took, the pass that prepares the images included.
    """

    value: Any
    seconds: float


def refine_all(
    adapter: Adapter,
    images: Images,
    cases: Sequence[Case],
    *,
    batch: int = 64,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Answer, list[Answer]]:
    """The unrefined model's answer, and the answer of every case in their order.

    Args:
        adapter: The model.
        images: N images. Each batch is asked for once, and let go before the next.
        cases: What to measure. Those with the same pivots share the pass that prepares a batch.
        batch: Images at a time, at least 1.
        progress: Called with a note before each batch is read, and before each case of it.

    Returns:
        The unrefined model's outputs, and what each case reads of its results. The seconds of
        the former are those of the pass that prepares the images.
    """
    first: list[Outputs] = []
    parts: list[list[Any]] = [[] for _ in cases]
    spent, seconds = 0.0, [0.0] * len(cases)
    for rows in split(len(images), batch):
        place = f"images {int(rows[0]) + 1} to {int(rows[-1]) + 1} of {len(images)}"
        progress(f"{place}, reading")
        photos = images[rows]
        prepared: dict[Any, tuple[Prepared, float]] = {}
        for number, case in enumerate(cases):
            progress(f"{place}, {case.name}")
            arguments = dict(case.arguments)
            pivots = arguments.pop("pivots", None) or adapter.defaults.pivots
            key = (pivots,) if isinstance(pivots, str) else tuple(pivots)
            evidence = case.evidence(rows)
            if key not in prepared:
                started = time.perf_counter()
                kept = adapter.prepare(photos, pivots=pivots)
                prepared[key] = kept, time.perf_counter() - started
            kept, once = prepared[key]
            started = time.perf_counter()
            result = adapter.refine(kept, evidence, **arguments)
            seconds[number] += once + time.perf_counter() - started
            parts[number].append(case.read(result))
        if prepared:
            kept, once = next(iter(prepared.values()))
            first.append(kept.unrefined(adapter.read))
            spent += once
        else:
            started = time.perf_counter()
            first.append(adapter.unrefined(photos))
            spent += time.perf_counter() - started
    answers = [Answer(join(own), took) for own, took in zip(parts, seconds, strict=True)]
    return Answer(join(first), spent), answers


def unrefined_logits(
    adapter: Adapter,
    images: Images,
    *,
    batch: int = 64,
    progress: Callable[[str], None] = lambda _: None,
) -> np.ndarray:
    """What the unrefined model says of all images, (N, labels) logits of its only output.

    Args:
        adapter: The model.
        images: N images.
        batch: Images at a time, at least 1.
        progress: Called with a note before each batch.
    """

    def logits(rows: Tensor) -> Tensor:
        progress(f"images from {int(rows[0]) + 1} of {len(images)}, unrefined")
        (found,) = adapter.unrefined(images[rows]).values()
        return found

    return in_batches(logits, len(images), batch).numpy()
