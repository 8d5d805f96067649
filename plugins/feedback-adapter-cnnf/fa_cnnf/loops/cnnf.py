"""The loop of CNN-F: forward, feedback, forward again, until label and features agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fa_cnnf.layers.chains import Chain
from fa_cnnf.layers.state import State
from fa_cnnf.loops.base import Loop, Unroll
from feedback_adapter.errors import OptionsError

__all__ = ["CNNF"]


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
            x: What the model that was converted takes.
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
