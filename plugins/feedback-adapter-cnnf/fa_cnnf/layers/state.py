"""What one call of a CNN-F remembers between its passes."""

from __future__ import annotations

import dataclasses
from typing import Any

from fa_cnnf.errors import FeedbackError

__all__ = ["State"]


@dataclasses.dataclass
class State:
    """The memory of one call. Layers keep nothing themselves, so calls can't mix.

    Args:
        step_size: How far AdaReLU moves a pre-activation towards its feedback, 0 to 1
            (res_param of the published code).
        cycle: Which forward pass is running: 0 for the ordinary one.
        memory: `{layer key: {name: tensor or shape}}`, part of the autograd graph.
        smooth: Above 0, gradients see each switch as a sigmoid of this width (in units of
            the root mean square of what it looks at); values stay as they are. For attacks.
    """

    step_size: float
    cycle: int = 0
    memory: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    smooth: float = 0.0

    def keep(self, key: str, **values: Any) -> None:
        """Remember values of a layer, over those kept under the same names."""
        self.memory.setdefault(key, {}).update(values)

    def get(self, key: str, name: str) -> Any:
        """What a layer kept.

        Raises:
            FeedbackError: Nothing was kept: feedback came before the first forward pass,
                or a later forward pass before any feedback.
        """
        try:
            return self.memory[key][name]
        except KeyError:
            raise FeedbackError(
                f"Layer {key!r} has no {name!r} in this state. Run forward, then feedback, then "
                "forward again, all with one State. (A pivot inside the loop of a CNNF does this "
                "too: its first pass is not run again. Choose 'input' or 'bottom'.)"
            ) from None
