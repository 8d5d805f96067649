"""Where the loop enters a network: after its first convolution, and at its features.

`Stem` and `Frontier` wrap a module of the converted copy. What they do is decided by the `Call`
that is active in the current thread; without one they are the modules that they wrap. So
nothing is stored on modules, and two threads can run one network.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Generator

from torch import Tensor, nn

__all__ = ["Call", "Frontier", "Stem"]

_active: contextvars.ContextVar[Call] = contextvars.ContextVar("fa_dfm_call")


@dataclasses.dataclass
class Call:
    """One step of the loop.

    Args:
        stem: s, if an earlier step has computed it.
        injected: A z, what is added to it; `None` for nothing.
        update: Makes the carried features from those of this step.

    Attributes:
        features: The carried features, once the step has passed them.
    """

    stem: Tensor | None
    injected: Tensor | None
    update: Callable[[Tensor], Tensor]
    features: Tensor | None = None

    @contextlib.contextmanager
    def active(self) -> Generator[None]:
        """Let the wrapped modules of this thread follow this call."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)


class Stem(nn.Module):
    """The first convolution: computed once per image, then feedback is added to it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to the convolution's output plus what is injected."""
        call = _active.get(None)
        if call is None:
            return self.inner(images)
        if call.stem is None:
            call.stem = self.inner(images)
        # The next layers may work in place, and the next step needs this stem.
        return call.stem.clone() if call.injected is None else call.stem + call.injected


class Frontier(nn.Module):
    """The last spatial features: they enter the state, and the head reads the state."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """What the wrapped module returns, after the update."""
        call = _active.get(None)
        delta = self.inner(*args, **kwargs)
        if call is None:
            return delta
        call.features = call.update(delta)
        return call.features
