"""Labels of a map of which it is known that they are present somewhere, or nowhere.

A model says of each pixel by itself how likely a label is, with log-odds o. So the label is absent
with log-probability -s, where s is the sum of softplus(o) over all pixels (noisy-or), and present
somewhere with log(1 - exp(-s)). Where s is tiny, log s is what is precise: it is the logsumexp of
log softplus(o).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.bound import rows_of
from feedback_adapter.evidence.certain import LIMIT, Certain, CertainOnMap
from feedback_adapter.evidence.given import everywhere
from feedback_adapter.outputs import Output, Outputs

EDGE = math.log(LIMIT) - math.log1p(-LIMIT)
"""Log-odds of what is as certain as a posterior can be."""

_TINY = 0.02
"""Below this s its logarithm says more than s itself."""


class Somewhere(Evidence):
    """Which labels of maps are present somewhere in an image, or nowhere, as tensors.

    Args:
        target: `{output: (batch, labels)}` in [0, 1], how likely each is present somewhere.
        weight: `{output: (batch, labels)}` in [0, 1]; 0 for what isn't known.
    """

    def __init__(self, target: dict[str, Tensor], weight: dict[str, Tensor]) -> None:
        self.target, self.weight = target, weight
        some = [name for name, w in weight.items() if bool((w > 0).any())]
        self.stated = some or list(weight)

    def certain(self) -> list[Certain]:
        return [
            _CertainSomewhere(name, torch.where(self.weight[name] == 1, target, torch.nan))
            for name, target in self.target.items()
        ]

    def loss(self, outputs: Outputs) -> Tensor:
        total: list[Tensor] = []
        for name in self.stated:
            logits, spec = outputs[name], outputs.specs[name]
            total.append(logits.flatten(1)[:, :1].sum(1) * 0)
            for label, target, weight in self._told(name, logits):
                absent, present = log_somewhere(log_odds_of(logits, label, spec))
                total.append(-weight * (target * present + (1 - target) * absent))
        return torch.stack(total).sum(0)

    def read(self, outputs: Outputs) -> Outputs:
        return Outputs({name: outputs[name] for name in self.stated}, outputs.specs)

    def clamp(self, outputs: Outputs) -> Outputs:
        """The exact posterior of each pixel; what is certain is held as `_hold` says."""
        new: dict[str, Tensor] = {}
        for name in self.stated:
            logits, spec = outputs[name], outputs.specs[name]
            for label, target, weight in self._told(name, logits):
                odds = log_odds_of(logits, label, spec)
                _, present = log_somewhere(odds)
                share = torch.lerp(present.exp(), target, weight)
                moved = _rescaled(odds, share, present)
                logits = _shifted(logits, label, torch.where(_wide(weight > 0), moved - odds, 0.0))
            new[name] = logits
        after = outputs.replace(**new)
        for fact in self.certain():
            assert isinstance(fact, CertainOnMap)
            after = fact.hold(after)
        return after

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """Where a label is nowhere, all its pixels are known."""
        return self._everywhere(outputs, present=False)

    def present(self, outputs: Outputs) -> dict[str, Tensor]:
        """See `Evidence.present`: a label that is somewhere may be at any of its pixels."""
        return self._everywhere(outputs, present=True)

    def take(self, rows: Tensor) -> Somewhere:
        return Somewhere(rows_of(self.target, rows), rows_of(self.weight, rows))

    def _everywhere(self, outputs: Outputs, *, present: bool) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = {}
        for name, target in self.target.items():
            said = target > 0.5 if present else target == 0
            mask = said & (self.weight[name] > 0)
            masks[name] = mask[:, :, None, None].expand_as(outputs[name])
        return everywhere(outputs, masks)

    def _told(self, name: str, like: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Each label of which something is known, with its target and weight, (batch,) each."""
        target, weight = self.target[name].to(like), self.weight[name].to(like)
        labels = (weight > 0).any(0).nonzero()[:, 0].tolist()
        return [(label, target[:, label], weight[:, label]) for label in labels]


class _CertainSomewhere(CertainOnMap):
    """Labels that are certain to be somewhere (1) or nowhere (0), (batch, labels)."""

    last = True

    def hold(self, outputs: Outputs) -> Outputs:
        """See `CertainOnMap.hold`.

        A label that is nowhere is so unlikely at every pixel that it is unlikely in all together.
        For one that is somewhere its pixels' posteriors are taken, and the likeliest pixel has it.
        """
        logits, spec = outputs[self.output], outputs.specs[self.output]
        value = self.value.to(logits)
        for label in (value == 0).any(0).nonzero()[:, 0].tolist():
            odds = log_odds_of(logits, label, spec)
            lowest = -EDGE - math.log(max(odds[0].numel(), 1))
            absent = _wide(value[:, label] == 0)
            logits = _shifted(
                logits, label, torch.where(absent, odds.clamp(max=lowest) - odds, 0.0)
            )
        for label in (value == 1).any(0).nonzero()[:, 0].tolist():
            odds = log_odds_of(logits, label, spec)
            _, present = log_somewhere(odds)
            moved = _rescaled(odds, torch.ones_like(present), present)
            best = moved.flatten(1).argmax(1, keepdim=True)
            flat = moved.flatten(1)
            flat = flat.scatter(1, best, flat.gather(1, best).clamp(min=EDGE))
            missing = (value[:, label] == 1) & (odds.flatten(1).amax(1) < EDGE - 1e-3)
            change = torch.where(_wide(missing), flat.reshape(odds.shape) - odds, 0.0)
            logits = _shifted(logits, label, change)
        return outputs.replace(**{self.output: logits})

    def broken(self, outputs: Outputs) -> str | None:
        logits, spec = outputs[self.output], outputs.specs[self.output]
        value = self.value.to(logits)
        for label in (~value.isnan()).any(0).nonzero()[:, 0].tolist():
            _, present = log_somewhere(log_odds_of(logits, label, spec))
            off = (present.exp() - value[:, label]).abs() > self.tolerance
            sure = (value[:, label] == 0) | (value[:, label] == 1)
            for image in (off & sure).nonzero()[:1, 0].tolist():
                where = "somewhere" if value[image, label] == 1 else "nowhere"
                return f"{spec.labels[label]!r} is said to be {where} in image {image}"
        return None


def log_odds_of(logits: Tensor, label: int, spec: Output) -> Tensor:
    """The log-odds of a label, by its number, at each pixel, (batch, height, width), in nats."""
    own = logits[:, label]
    if not spec.one_holds:
        return own
    # parts of the map are views: nothing of its size is copied
    parts = [
        part.logsumexp(1) for part in (logits[:, :label], logits[:, label + 1 :]) if part.shape[1]
    ]
    return own - (parts[0] if len(parts) == 1 else torch.logaddexp(*parts))


def log_somewhere(odds: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probabilities that a label is at no pixel, and at one at least, (batch,) each.

    Its log-odds at each pixel are (batch, height, width).
    """
    flat = odds.flatten(1)
    least = -20.0  # below it log softplus(o) = o - exp(o) / 2 to the last digit
    log_softplus = torch.where(
        flat < least,
        flat - flat.clamp(max=least).exp() / 2,
        F.softplus(flat.clamp(min=least)).log(),
    )
    log_s = log_softplus.logsumexp(1)
    s = log_s.exp()
    small = s.clamp(max=_TINY)
    tiny = log_s - small / 2 + small.square() / 24
    return -s, torch.where(s < _TINY, tiny, (-torch.expm1(-s.clamp(min=_TINY))).log())


def _rescaled(odds: Tensor, share: Tensor, present: Tensor) -> Tensor:
    """Log-odds of the pixels of a label that is somewhere with probability `share` (batch,).

    Given that it is somewhere a pixel's probability is divided by that of being somewhere; given
    that it is nowhere it is 0.
    """
    tiny = torch.finfo(odds.dtype).tiny
    log_p = F.logsigmoid(odds) + _wide(share.clamp(min=tiny).log() - present)
    log_p = log_p.clamp(max=math.log(LIMIT))
    return log_p - (-torch.expm1(log_p)).log()


def _shifted(logits: Tensor, label: int, change: Tensor) -> Tensor:
    """Logits of which one label's are moved, which moves its log-odds by as much."""
    new = logits.clone()
    new[:, label] += change
    return new


def _wide(values: Tensor) -> Tensor:
    """(batch,) as (batch, 1, 1)."""
    return values[:, None, None]
