"""Layers put together: one after the other, or side by side and added."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fa_cnnf.layers.base import Layer
from fa_cnnf.layers.state import State

__all__ = ["Chain", "Fork"]


class Chain(Layer):
    """Layers one after the other; feedback runs them from the last to the first.

    Args:
        layers: In forward order; none makes an identity.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, state: State) -> Tensor:
        """Through all layers."""
        for layer in self.layers:
            x = layer(x, state)
        return x

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """Back through all layers."""
        for layer in reversed(self.layers):
            g = layer.feedback(g, state)  # pyright: ignore[reportCallIssue]
        return g


class Fork(Layer):
    """A residual connection: the sum of two chains, in both directions.

    Args:
        main: The residual branch.
        shortcut: The other one; an empty chain is the identity.
    """

    def __init__(self, main: Chain, shortcut: Chain) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Tensor, state: State) -> Tensor:
        """main(x) + shortcut(x)."""
        return self.main(x, state) + self.shortcut(x, state)

    def feedback(self, g: Tensor, state: State) -> Tensor:
        """The two branches' feedback, added."""
        return self.main.feedback(g, state) + self.shortcut.feedback(g, state)
