"""Hiding part of what is known, and scoring how well it is predicted.

A refinement is given the rest; a criterion says of its outputs how much better they predict what
was hidden than the plain model's do. It gives one score per unit (image or label), so that
settings can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Outputs

__all__ = ["Criterion", "Hidden", "average_precision", "hide", "likelihood", "precision"]

Criterion = Callable[[Outputs], Tensor]
"""Scores a batch's outputs: (units,) float64, 0 for the plain model's, more is better."""


class Hidden(Evidence):
    """Evidence without some of its variables: their logits stay what they were.

    Works with any evidence, since all it needs is the loss and what is known.

    Args:
        evidence: The whole evidence, bound.
        plain: The plain model's outputs.
        hidden: `{output: (batch, labels) bool}`, which variables to hide.
    """

    def __init__(self, evidence: Evidence, plain: Outputs, hidden: dict[str, Tensor]) -> None:
        self.evidence, self.plain, self.hidden = evidence, plain, hidden

    def _replaced(self, outputs: Outputs) -> Outputs:
        return outputs.replace(
            **{
                name: torch.where(mask, self.plain[name], outputs[name])
                for name, mask in self.hidden.items()
            }
        )

    def loss(self, outputs: Outputs) -> Tensor:
        """The loss of what is left, and a constant. See `Evidence.loss`."""
        return self.evidence.loss(self._replaced(outputs))

    def clamp(self, outputs: Outputs) -> Outputs:
        """See `Evidence.clamp`."""
        clamped = self.evidence.clamp(outputs)
        new = {n: torch.where(m, outputs[n], clamped[n]) for n, m in self.hidden.items()}
        return clamped.replace(**new)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Evidence.known`."""
        known = self.evidence.known(outputs)
        return {n: m & ~self.hidden[n] if n in self.hidden else m for n, m in known.items()}

    def take(self, images: Tensor) -> Hidden:
        """See `Evidence.take`."""
        plain = Outputs({n: v[images] for n, v in self.plain.items()}, self.plain.specs)
        hidden = {name: mask[images] for name, mask in self.hidden.items()}
        return Hidden(self.evidence.take(images), plain, hidden)

    def gain(self, outputs: Outputs) -> Tensor:
        """How much likelier the hidden variables are than in the plain model, (batch,) nats."""
        fell = self.evidence.loss(self.plain) - self.evidence.loss(outputs)
        return fell - (self.loss(self.plain) - self.loss(outputs))

    @property
    def count(self) -> int:
        """How many variables are hidden, of all images."""
        return sum(int(mask.sum()) for mask in self.hidden.values())


def hide(evidence: Evidence, plain: Outputs, share: float, seed: int) -> Hidden:
    """Hide a random share of what is known of each image, never all of it.

    Args:
        evidence: What is known, bound.
        plain: The plain model's outputs.
        share: Of the known variables that is hidden, in (0, 1); at least one is, of two or more.
        seed: Of what is hidden.
    """
    known = evidence.known(plain)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.cat([m.cpu() for m in known.values()], 1)
    random = torch.where(mask, torch.rand(mask.shape, generator=generator), 2.0)
    amount = mask.sum(1, keepdim=True)
    count = (amount * share).round().clamp(min=1).minimum(amount - 1).clamp(min=0)
    chosen = (random.argsort(1).argsort(1) < count) & mask
    parts = chosen.split([m.shape[1] for m in known.values()], 1)
    masks = {n: p.to(m.device) for (n, m), p in zip(known.items(), parts, strict=True)}
    return Hidden(evidence, plain, masks)


def likelihood(hidden: Hidden) -> Criterion:
    """A score per image: its mean is the nats that a hidden variable became likelier by."""
    each = max(hidden.count, 1) / hidden.plain.batch
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
    told = hidden.evidence.clamp(hidden.plain).probabilities()
    for name, mask in hidden.hidden.items():
        if hidden.plain.specs[name].kind == "multilabel":
            there = (told[name] > 0.5) & mask
            truth[name], labels[name] = there, there.any(0) & (mask & ~there).any(0)
    if not any(bool(some.any()) for some in labels.values()):
        return None

    def scores(outputs: Outputs) -> Tensor:
        found: list[Tensor] = []
        for name, some in labels.items():
            logits = outputs[name].masked_fill(~hidden.hidden[name], -torch.inf)
            found.append(average_precision(logits[:, some], truth[name][:, some]))
        return 100 * torch.cat(found)

    plain = scores(hidden.plain)
    return lambda outputs: scores(outputs) - plain


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Average precision of each label, in [0, 1], float64; ties as they come.

    Args:
        scores: (N, labels); -inf where an image doesn't count.
        truth: (N, labels) bool, at least one per label.
    """
    hits = truth.gather(0, scores.argsort(dim=0, descending=True, stable=True)).double()
    ranks = torch.arange(1, len(hits) + 1, device=hits.device)[:, None]
    return (hits.cumsum(0) / ranks * hits).sum(0) / hits.sum(0)
