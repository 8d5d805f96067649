"""The loop of CNN-F: forward, feedback, forward again, until label and features agree."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fa_cnnf.chains import Chain
from fa_cnnf.state import State
from feedback_adapter.errors import OptionsError

__all__ = ["CNNF", "READOUTS", "Loop", "Unroll", "read_out"]

READOUTS = ("last", "avg")
"""How logits are read out of the iterates: the last one, or the mean of all T + 1."""


@dataclasses.dataclass(frozen=True)
class Unroll:
    """All iterates of one call, part of the autograd graph.

    Args:
        logits: (T + 1, batch, classes); the first is the plain model's.
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
            x: What the plain model takes.
            steps: T, at least 0; 0 is the plain model.
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


class CNNF(Loop):
    """A convolutional net with recurrent generative feedback; `convert` makes one.

    Nothing of a call stays on the module: calls may run in several threads at once, and
    autograd goes through the whole unroll. Source: 'Neural Networks with Recurrent
    Generative Feedback' (NeurIPS 2020), section 2.3.

    Args:
        bottom: From the input to the site; runs once.
        segments: From the site to the logits, cut at the inner sites.
        sites: The site's name, then the inner ones', in forward order.
        steps: T, feedback iterations of `forward`, at least 0.
        step_size: eta, in [0, 1].

    Raises:
        OptionsError: An option is out of range.
    """

    def __init__(
        self,
        bottom: Chain,
        segments: Sequence[Chain],
        sites: Sequence[str],
        steps: int = 1,
        step_size: float = 0.1,
    ) -> None:
        super().__init__(steps)
        if not 0 <= step_size <= 1:
            raise OptionsError(f"step_size={step_size} is out of range: it must be in [0, 1].")
        self.bottom = bottom
        self.segments = nn.ModuleList(segments)
        self.sites, self.step_size = tuple(sites), step_size

    def unroll(
        self,
        x: Tensor,
        steps: int | None = None,
        clamp: Callable[[Tensor], Tensor] | None = None,
        cut: bool = False,
        smooth: float = 0.0,
    ) -> Unroll:
        """All iterates of images.

        Args:
            x: What the plain model takes.
            steps: T, at least 0 (default: `self.steps`).
            clamp: What feedback generates from, given raw logits (batch, classes): fix in
                it what is known. `None` generates from the logits themselves.
            cut: Stop gradients at what feedback starts from, so that they see the model
                without its loop.
            smooth: Above 0, gradients see switches of this width; see `State.smooth`.

        Raises:
            OptionsError: `steps` is negative.
        """
        state = State(self.step_size, smooth=smooth)
        h = self.bottom(x, state)
        features, reconstructions = [h], []
        inner_features: dict[str, Tensor] = {}
        inner_back: dict[str, list[Tensor]] = {name: [] for name in self.sites[1:]}
        o = self._top(h, state, inner_features)
        logits = [o]
        for cycle in range(1, self.iterations(steps) + 1):
            top = o if clamp is None else clamp(o)
            g = top.detach() if cut else top
            for index in range(len(self.segments) - 1, -1, -1):
                g = self.segments[index].feedback(g, state)  # pyright: ignore[reportCallIssue]
                if index:
                    inner_back[self.sites[index]].append(g)
            reconstructions.append(g)
            h = h + self.step_size * (g - h)
            features.append(h)
            state.cycle = cycle
            o = self._top(h, state, None)
            logits.append(o)
        return Unroll(
            torch.stack(logits),
            tuple(features),
            tuple(reconstructions),
            inner_features,
            {name: tuple(values) for name, values in inner_back.items()},
        )

    def _top(self, h: Tensor, state: State, keep: dict[str, Tensor] | None) -> Tensor:
        for index, segment in enumerate(self.segments):
            if index and keep is not None:
                keep[self.sites[index]] = h
            h = segment(h, state)
        return h

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return f"site={self.sites[0]!r}, steps={self.steps}, step_size={self.step_size}"
