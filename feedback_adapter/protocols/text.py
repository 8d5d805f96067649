"""Text: some of an image's captions are known, words of a caption left out are predicted.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.3, where the text
is a news article; here it is one to four of an image's five captions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feedback_adapter.adapter import Adapter
from feedback_adapter.data.words import targets_for
from feedback_adapter.evidence.text import Reliability, Text
from feedback_adapter.protocols.partial_labels import mean_average_precision

__all__ = ["TextRow", "fit_reliability", "measure_text"]


@dataclasses.dataclass(frozen=True)
class TextRow:
    """What one method scores with some captions as the text.

    Args:
        method: `"none"` is the plain model.
        captions: How many are known.
        map: Mean average precision over all words of the caption left out, 0 to 100; mean
            over which caption is left out.
        map_sd: Its standard deviation.
    """

    method: str
    captions: int
    map: float
    map_sd: float


def measure_text(
    adapter: Adapter,
    images: Tensor,
    captions: Sequence[Sequence[str]],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    reliability: Reliability | None = None,
    absent: float = 1.0,
    amounts: Sequence[int] = (1, 2, 3, 4),
    draws: int = 3,
    batch: int = 64,
    progress: Callable[[str], None] = lambda _: None,
) -> list[TextRow]:
    """Measure methods side by side.

    Args:
        adapter: A multilabel model of caption words.
        images: (N, channels, height, width), as the model takes them.
        captions: (N) five captions each.
        methods: Arguments of `Adapter.refine` by name; `None` as the strategy for Bayes'
            rule word by word (the clamp), without feedback.
        reliability: How far to trust the text.
        absent: Weight of words that aren't mentioned.
        amounts: How many captions are the text.
        draws: How many of the five captions are left out in turn, 1 to 5.
        batch: Images at a time.
        progress: Called with a note before each pass.
    """
    labels = adapter.labels
    scores: dict[tuple[str, int], list[float]] = {}
    for left_out in range(draws):
        truth = targets_for([[own[left_out]] for own in captions], labels)
        parts = [torch.as_tensor(adapter.predict(images[r])) for r in _rows(len(images), batch)]
        plain = mean_average_precision(torch.cat(parts).numpy(), truth)
        for amount in amounts:
            scores.setdefault(("none", amount), []).append(plain)
            texts = [
                " . ".join([c for i, c in enumerate(own) if i != left_out][:amount])
                for own in captions
            ]
            for name, arguments in methods.items():
                progress(f"{name}, {amount} captions, without number {left_out + 1}")
                results: list[Tensor] = []
                for rows in _rows(len(images), batch):
                    told = Text(
                        [texts[i] for i in rows.tolist()], reliability=reliability, absent=absent
                    )
                    results.append(_after(adapter, images[rows], told, arguments))
                value = mean_average_precision(torch.cat(results).numpy(), truth)
                scores.setdefault((name, amount), []).append(value)
    return [
        TextRow(
            name, amount, float(np.mean(found)),
            float(np.std(found, ddof=1)) if len(found) > 1 else 0.0,
        )
        for (name, amount), found in scores.items()
    ]  # fmt: skip


def fit_reliability(
    captions: Sequence[Sequence[str]], labels: Sequence[str], amount: int
) -> Reliability:
    """How often a word of the last caption is in the first `amount`, on training captions."""
    truth = torch.from_numpy(targets_for([own[-1:] for own in captions], labels))
    return Reliability.fit([" . ".join(own[:amount]) for own in captions], truth, labels)


def _after(adapter: Adapter, images: Tensor, told: Text, arguments: Mapping[str, Any]) -> Tensor:
    if arguments.get("strategy", "") is None:
        plain = torch.as_tensor(adapter.predict(images))
        outputs = adapter.read(plain)
        return told.clamp(outputs)[next(iter(adapter.outputs))]
    result = adapter.refine(images, told, **arguments)
    return result.outputs_after[next(iter(adapter.outputs))]


def _rows(count: int, batch: int) -> Sequence[Tensor]:
    return torch.arange(count).split(batch)
