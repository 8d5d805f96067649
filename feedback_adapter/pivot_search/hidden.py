"""Hiding part of what is known, and scoring how well it is predicted.

A refinement is given the rest; a criterion says of its outputs how much better they predict what
was hidden than the unrefined model's do. It gives one score per unit (image or label), so that
settings can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Outputs

Criterion = Callable[[Outputs], Tensor]
"""Scores a batch's outputs: (units,) float64, 0 for the unrefined model's, more is better."""


class Hidden(Evidence):
    """Evidence without some of its variables: their logits stay what they were.

    Works with any evidence, since all it needs is the loss and what is known.

    Args:
        evidence: The whole evidence, bound.
        unrefined: The unrefined model's outputs.
        hidden: `{output: (batch, labels) bool}`, which variables to hide.
    """

    def __init__(self, evidence: Evidence, unrefined: Outputs, hidden: dict[str, Tensor]) -> None:
        self.evidence, self.unrefined, self.hidden = evidence, unrefined, hidden

    def _replaced(self, outputs: Outputs) -> Outputs:
        new = {n: torch.where(m, self.unrefined[n], outputs[n]) for n, m in self.hidden.items()}
        return outputs.replace(**new)

    def loss(self, outputs: Outputs) -> Tensor:
        """The loss of what is left, and a constant. See `Evidence.loss`."""
        return self.evidence.loss(self._replaced(outputs))

    def clamp(self, outputs: Outputs) -> Outputs:
        clamped = self.evidence.clamp(outputs)
        new = {n: torch.where(m, outputs[n], clamped[n]) for n, m in self.hidden.items()}
        return clamped.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        known = self.evidence.known(outputs)
        return {n: m & ~self.hidden[n] if n in self.hidden else m for n, m in known.items()}

    def take(self, rows: Tensor) -> Hidden:
        hidden = {name: mask[rows] for name, mask in self.hidden.items()}
        return Hidden(self.evidence.take(rows), self.unrefined.take(rows), hidden)

    def gain(self, outputs: Outputs) -> Tensor:
        """How much likelier the hidden variables are than in the unrefined model, (batch,) nats."""
        fell = self.evidence.loss(self.unrefined) - self.evidence.loss(outputs)
        return fell - (self.loss(self.unrefined) - self.loss(outputs))

    @property
    def count(self) -> int:
        """How many variables are hidden, of all images."""
        return sum(int(mask.sum()) for mask in self.hidden.values())


def hide(evidence: Evidence, unrefined: Outputs, share: float, seed: int) -> Hidden:
    """Hide a random share, in (0, 1), of what is known of each image, never all of it.

    Of two known variables or more at least one is hidden. The evidence is bound.
    """
    known = evidence.known(unrefined)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.cat([m.cpu() for m in known.values()], 1)
    random = torch.where(mask, torch.rand(mask.shape, generator=generator, device="cpu"), 2.0)
    amount = mask.sum(1, keepdim=True)
    count = (amount * share).round().clamp(min=1).minimum(amount - 1).clamp(min=0)
    chosen = (random.argsort(1).argsort(1) < count) & mask
    parts = chosen.split([m.shape[1] for m in known.values()], 1)
    masks = {n: p.to(m.device) for (n, m), p in zip(known.items(), parts, strict=True)}
    return Hidden(evidence, unrefined, masks)


def likelihood(hidden: Hidden) -> Criterion:
    """A score per image: its mean is the nats that a hidden variable became likelier by."""
    each = max(hidden.count, 1) / hidden.unrefined.batch
    return lambda outputs: hidden.gain(outputs).double() / each


def precision(hidden: Hidden) -> Criterion | None:
    """A score per label: what its average precision gained, in percent.

    Taken over the images in which the label is hidden. What shifts a label alike in all images
    counts for nothing here, while the likelihood rewards it.

    Returns:
        `None` where no hidden label of a multilabel output is both present and absent.
    """
    truth: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    clamped = hidden.evidence.clamp(hidden.unrefined).probabilities()
    for name, mask in hidden.hidden.items():
        if hidden.unrefined.specs[name].kind == "multilabel":
            there = (clamped[name] > 0.5) & mask
            truth[name], labels[name] = there, there.any(0) & (mask & ~there).any(0)
    if not any(bool(some.any()) for some in labels.values()):
        return None

    def scores(outputs: Outputs) -> Tensor:
        found: list[Tensor] = []
        for name, some in labels.items():
            logits = outputs[name].masked_fill(~hidden.hidden[name], -torch.inf)
            found.append(average_precision(logits[:, some], truth[name][:, some]))
        return 100 * torch.cat(found)

    start = scores(hidden.unrefined)
    return lambda outputs: scores(outputs) - start


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Average precision of each label, in [0, 1], float64; ties as they come.

    Args:
        scores: (N, labels); -inf where an image doesn't count.
        truth: (N, labels) bool, at least one per label.
    """
    hits = truth.gather(0, scores.argsort(dim=0, descending=True, stable=True)).double()
    ranks = torch.arange(1, len(hits) + 1, device=hits.device)[:, None]
    return (hits.cumsum(0) / ranks * hits).sum(0) / hits.sum(0)
