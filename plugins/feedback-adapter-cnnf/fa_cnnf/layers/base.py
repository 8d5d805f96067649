"""What all layers are: something that runs forward, and as the generative feedback.

What the two passes tell each other is in the `State` of the call. Source: 'Neural Networks with
Recurrent Generative Feedback' (NeurIPS 2020), section 2.2 and its published code.
"""

from __future__ import annotations

import abc

from torch import Tensor, nn

from fa_cnnf.layers.state import State

__all__ = ["Layer"]


class Layer(nn.Module, abc.ABC):
    """One layer of a CNN-F.

    Attributes:
        key: Unique within a converted model; set by `convert`, names the layer's memory.
        name: Path of the module of the user's model that this layer came from.
    """

    key: str = ""
    name: str = ""

    @abc.abstractmethod
    def forward(self, x: Tensor, state: State) -> Tensor:
        """Run forward, in cycle `state.cycle`."""

    @abc.abstractmethod
    def feedback(self, g: Tensor, state: State) -> Tensor:
        """Run backwards: from a value at the layer's output to one at its input."""
