"""What all attacks share: what they increase, where they may go, and the worst image so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.errors import InputError, OptionsError

__all__ = ["LOSSES", "Ball", "Objective", "Worst", "begin", "check_range"]

LOSSES = ("ce", "margin", "dlr")
"""Cross-entropy; largest wrong logit minus the right one; targeted difference of logits ratio."""

ROUNDING = 1e-5
"""How far outside of [-1, 1] a pixel may be: what rounding makes of an image that is within."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """What an attack increases, per image.

    Args:
        views: Takes images (n, ...), returns logits (k, n, classes): the loss is their mean.
        labels: (batch) right classes.
        loss: One of `LOSSES`. "dlr" is that of APGD-T (Croce and Hein 2020, section 5.1) and
            needs at least four classes.
        targets: (batch) classes to reach, for "dlr".
        verdict: Makes the logits (n, classes) that are scored out of the views; the last by
            default.
        surrogate: What is scored isn't what is to be fooled in the end: an attack then goes on
            with an image that it has fooled.
    """

    views: Callable[[Tensor], Tensor]
    labels: Tensor
    loss: str = "ce"
    targets: Tensor | None = None
    verdict: Callable[[Tensor], Tensor] = lambda views: views[-1]
    surrogate: bool = False

    def __call__(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (n) and whether each image is misclassified (n, bool).

        Args:
            images: (n, ...), variants of those that `rows` names.
            rows: (n) indices into the batch.
        """
        views, y = self.views(images), self.labels[rows]
        wrong = self.verdict(views).argmax(-1) != y
        if self.loss == "ce":
            flat = F.cross_entropy(views.flatten(0, 1), y.repeat(len(views)), reduction="none")
            return flat.view(len(views), -1).mean(0), wrong
        right = views.gather(2, y.expand(len(views), -1)[..., None])[..., 0]
        if self.loss == "margin":
            others = views.scatter(2, y.expand(len(views), -1)[..., None], -torch.inf)
            return (others.amax(-1) - right).mean(0), wrong
        assert self.targets is not None
        target = views.gather(2, self.targets[rows].expand(len(views), -1)[..., None])[..., 0]
        ordered = views.sort(-1).values
        scale = ordered[..., -1] - (ordered[..., -3] + ordered[..., -4]) / 2
        return ((target - right) / (scale + 1e-12)).mean(0), wrong

    def __post_init__(self) -> None:
        if self.loss not in LOSSES or (self.loss == "dlr") != (self.targets is not None):
            raise OptionsError(
                f"loss={self.loss!r} with{'out' if self.targets is None else ''} targets is not "
                f"possible: {', '.join(LOSSES)} are, and targets belong to 'dlr'."
            )


def check_range(images: Tensor) -> None:
    """Refuse images that aren't in [-1, 1], to which attacks keep what they make.

    Raises:
        InputError: They aren't floating point, or a pixel is outside or NaN.
    """
    if not images.is_floating_point():
        raise InputError(f"The images are {images.dtype}: attacks take floating-point numbers.")
    if not bool((images.abs() <= 1 + ROUNDING).all()):
        raise InputError(
            f"The images have values from {images.min():.3g} to {images.max():.3g}, but attacks "
            "take pixels in [-1, 1]: scale them so, and let the network begin with whatever "
            "normalisation it needs."
        )


class Ball:
    """The images within eps of clean ones in the maximum norm, pixels in [-1, 1].

    Args:
        x: Clean images (batch, ...) in [-1, 1].
        eps: Largest change, in the units of `x`, at least 0.

    Raises:
        InputError: The images aren't in [-1, 1].
        OptionsError: eps is out of range.
    """

    def __init__(self, x: Tensor, eps: float) -> None:
        check_range(x)
        if not 0 <= eps <= 2:
            raise OptionsError(f"eps={eps} is out of range: it must be from 0 to 2.")
        self.low, self.high = (x - eps).clamp(min=-1), (x + eps).clamp(max=1)

    def project(self, images: Tensor, rows: Tensor) -> Tensor:
        """The nearest images (n, ...) in the balls of the rows."""
        return torch.minimum(torch.maximum(images, self.low[rows]), self.high[rows])


class Worst:
    """The worst image that an attack met, per clean image: fooling first, then by loss.

    Args:
        x: Clean images (batch, ...).
        stop: Whether an image that is fooled needs no more work.
    """

    def __init__(self, x: Tensor, stop: bool) -> None:
        self.images = x.clone()
        self.losses = torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.stop = stop

    def update(self, rows: Tensor, images: Tensor, losses: Tensor, wrong: Tensor) -> Tensor:
        """Take in images of some rows; returns which of them are the worst so far (n, bool)."""
        before, had = self.fooled[rows], self.losses[rows]
        better = (wrong & ~before) | ((wrong == before) & (losses > had))
        taken = rows[better]
        self.images[taken], self.losses[taken] = images[better].detach(), losses[better].detach()
        self.fooled[taken] |= wrong[better]
        return better

    def left(self) -> Tensor:
        """Rows that need more work."""
        rows = torch.arange(len(self.fooled), device=self.fooled.device)
        return rows[~self.fooled] if self.stop else rows


def begin(objective: Objective, x: Tensor, start: Tensor, eps: float) -> tuple[Ball, Worst, Tensor]:
    """What every ascent begins with: where it may go, the worst so far, and its first images.

    Args:
        objective: What it increases; fooled images need no more work unless it is a surrogate.
        x: Clean images (batch, ...) in [-1, 1].
        start: Where to start, in [-1, 1] times eps, shaped as `x`.
        eps: Largest change, in the units of `x`.

    Raises:
        InputError: `x` isn't in [-1, 1], or `start` isn't or has another shape.
        OptionsError: eps is out of range.
    """
    if start.shape != x.shape or not bool((start.abs() <= 1 + ROUNDING).all()):
        raise InputError(
            f"start has shape {tuple(start.shape)} for images {tuple(x.shape)}: give as many "
            "numbers as there are pixels, each in [-1, 1]."
        )
    ball, worst = Ball(x, eps), Worst(x, not objective.surrogate)
    return ball, worst, ball.project(x + eps * start, torch.arange(len(x), device=x.device))
