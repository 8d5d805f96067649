"""The switch that agrees with feedback."""

from __future__ import annotations

import torch
from torch import Tensor

from fa_cnnf.layers.base import Layer
from fa_cnnf.layers.smooth import soft_switch, straight_through
from fa_cnnf.layers.state import State

__all__ = ["AdaReLU"]


class AdaReLU(Layer):
    """The switch that agrees with feedback (section 2.2).

    Cycle 0 is the ordinary activation. Later, with g the value that feedback brought here:
    f' = f + step_size (g - f), which passes where f' and g have the same sign.

    Args:
        slope: What passes where the switch is off: 0 for ReLU, else as in LeakyReLU.
        limit: Largest output; 6 for ReLU6. Where it is reached, feedback is off.
        normalise: Whether `convert` puts a `FeedbackNorm` above it.
    """

    def __init__(
        self, slope: float = 0.0, limit: float | None = None, normalise: bool = True
    ) -> None:
        super().__init__()
        self.slope, self.limit, self.normalise = slope, limit, normalise

    def forward(self, x: Tensor, state: State) -> Tensor:
        """Any shape, the same shape."""
        if state.cycle:
            g = state.get(self.key, "g")
            x = x + state.step_size * (g - x)
            sign = x * g
        else:
            sign = x
        switch = sign > 0
        value = self._pass(x, switch, sign, state)
        if self.limit is not None:
            switch = torch.logical_and(switch, x.abs() < self.limit)
            value = value.clamp(-self.limit, self.limit)
        state.keep(self.key, switch=switch)
        if state.smooth:
            state.keep(self.key, sign=sign)
        return value

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """g where the last forward pass was on; g itself is kept for the next one."""
        switch = state.get(self.key, "switch")
        state.keep(self.key, g=g)
        return self._pass(g, switch, state.get(self.key, "sign") if state.smooth else g, state)

    def _pass(self, x: Tensor, switch: Tensor, sign: Tensor, state: State) -> Tensor:
        """x where the switch is on, slope x elsewhere."""
        value = torch.where(switch, x, x * self.slope if self.slope else torch.zeros_like(x))
        if state.smooth:
            share = soft_switch(sign, state.smooth)
            value = straight_through(value, x * (self.slope + (1 - self.slope) * share))
        return value
