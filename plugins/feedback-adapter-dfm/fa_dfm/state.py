"""What the loop carries from one step to the next: an object of the call, not of the network."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

__all__ = ["State"]


@dataclasses.dataclass(frozen=True)
class State:
    """The state after `step` steps.

    Args:
        step: t, how many steps were made.
        stem: s, the output of the first convolution, computed once; `None` before step 1.
        features: u, what the loop has accumulated, (batch, channels, height, width); `None`
            stands for zeros, before step 1.
        logits: o, the newest output; `None` before step 1.
        prediction: p, the newest probabilities; `None` stands for uniform ones, before step 1.
    """

    step: int = 0
    stem: Tensor | None = None
    features: Tensor | None = None
    logits: Tensor | None = None
    prediction: Tensor | None = None

    def detach(self) -> State:
        """Cut what is fed back from the autograd graph; the stem stays in it."""
        return dataclasses.replace(
            self, features=_detached(self.features), prediction=_detached(self.prediction)
        )

    def roll(self) -> State:
        """Give each image the feedback of its neighbour in the batch, and keep its own stem."""
        return dataclasses.replace(
            self, features=_rolled(self.features), prediction=_rolled(self.prediction)
        )


def _detached(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()


def _rolled(value: Tensor | None) -> Tensor | None:
    return None if value is None else torch.roll(value, 1, 0)
