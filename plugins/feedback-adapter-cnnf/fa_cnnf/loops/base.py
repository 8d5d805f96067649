"""What all loops share: their iterates, how logits are read out of them, and `forward`."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

from torch import Tensor, nn

from feedback_adapter.errors import OptionsError

__all__ = ["READOUTS", "Loop", "Unroll", "read_out"]

READOUTS = ("last", "avg")
"""How logits are read out of the iterates: the last one, or the mean of all T + 1."""


@dataclasses.dataclass(frozen=True)
class Unroll:
    """All iterates of one call, part of the autograd graph.

    Args:
        logits: (T + 1, batch, classes); the first is the unrefined model's.
        features: h_0 .. h_T at the site, each (batch, ...).
        reconstructions: The T feedback values at the site.
        inner_features: `{inner site: (batch, ...)}` of the first pass.
        inner_reconstructions: `{inner site: T feedback values}`.
    """

    logits: Tensor
    features: tuple[Tensor, ...]
    reconstructions: tuple[Tensor, ...]
    inner_features: dict[str, Tensor]
    inner_reconstructions: dict[str, tuple[Tensor, ...]]


def read_out(logits: Tensor, readout: str = "last") -> Tensor:
    """Read logits (batch, classes) out of all iterates (T + 1, batch, classes).

    Args:
        logits: As in `Unroll.logits`.
        readout: `"last"` or `"avg"`.

    Raises:
        OptionsError: An unknown read-out.
    """
    if readout not in READOUTS:
        raise OptionsError(f"readout={readout!r} is not possible: {', '.join(READOUTS)} are.")
    return logits[-1] if readout == "last" else logits.mean(0)


class Loop(nn.Module):
    """A model that predicts again after feedback: what all loops share.

    A subclass implements `unroll(x, steps, clamp)`.

    Args:
        steps: T, feedback iterations of `forward`, at least 0.

    Raises:
        OptionsError: `steps` is negative.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.iterations()

    def forward(self, x: Tensor, steps: int | None = None, readout: str = "last") -> Tensor:
        """Logits (batch, classes) of images after `steps` iterations (default: `self.steps`).

        Args:
            x: What the model that was converted takes.
            steps: T, at least 0; 0 is the unrefined model.
            readout: `"last"` or `"avg"`.

        Raises:
            OptionsError: An option is out of range.
        """
        return read_out(self.unroll(x, steps).logits, readout)

    def iterations(self, steps: int | None = None) -> int:
        """How many iterations a call makes: as many as asked for, or `self.steps`."""
        steps = self.steps if steps is None else steps
        if steps < 0:
            raise OptionsError(f"steps={steps} is out of range: it must be at least 0.")
        return steps

    @abc.abstractmethod
    def unroll(self, x: Any, steps: int | None = None) -> Unroll:
        """All iterates of images."""
