"""Where in the image a prediction comes from, before and after a refinement.

captum never sees the user's model: it gets a small module of ours that runs what follows a pivot,
so that it works at every pivot, whatever the order of its dimensions, and hooks nothing of the
user's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.sites.site import layout_of

STEPS = 8
"""Points between the two activations at which the gradient is taken for the map of the change."""

Score = Callable[[Tensor], Tensor]
"""What follows from a pivot's activation (1, ...): the log-odds of a label, (1,), in nats."""


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """Where a label's log-odds come from, on the grid of a pivot's activation, (height, width).

    Args:
        pivot: Name of the site; of several pivots the last one in the forward pass.
        before: Grad-CAM of the unrefined network (not rectified: what speaks against the label
            is negative). It has a scale of its own.
        refined: Gradient times activation of the refined network, in nats; `None` where the
            strategy moves no pivots, so that there is no refined network.
        change: How much of the move of the refined network's own log-odds comes from the change
            at each place, in nats: integrated gradients from the unrefined activation to the
            refined one. With `elsewhere` it sums to that move. `None` as for `refined`.
        elsewhere: The part of `change` at tokens that have no place, such as a class token.
    """

    pivot: str
    before: Tensor
    refined: Tensor | None = None
    change: Tensor | None = None
    elsewhere: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The maps as lists of rows."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {n: v.tolist() if isinstance(v, Tensor) else v for n, v in fields.items()}


@dataclasses.dataclass(frozen=True)
class Grid:
    """How an activation is a grid of places with channels. Make it with `of`.

    Args:
        layout: `"NCHW"`, `"NHWC"` or `"NLC"`.
        size: Height and width.
        extra: How many tokens before those of the grid have no place (`"NLC"` only).
    """

    layout: str
    size: tuple[int, int]
    extra: int = 0

    @classmethod
    def of(cls, shape: Sequence[int], image: Sequence[int]) -> Grid | None:
        """The grid of an activation of some shape, or `None` where it has none.

        Tokens are the places of a grid that has the image's aspect ratio, row by row, after as
        few others as possible. Both shapes begin with the batch.
        """
        layout = layout_of(shape, image)
        if layout in ("NCHW", "NHWC"):
            first = 2 if layout == "NCHW" else 1
            return cls(layout, (shape[first], shape[first + 1]))
        if layout == "NLC" and len(image) == 4:
            for extra in range(shape[1]):
                height = round(((shape[1] - extra) * image[2] / image[3]) ** 0.5)
                width = (shape[1] - extra) // max(height, 1)
                whole = height * width == shape[1] - extra
                if whole and height * image[3] == width * image[2]:
                    return cls(layout, (height, width), extra)
        return None

    def split(self, activation: Tensor) -> tuple[Tensor, ...]:
        """The grid, (batch, channels, height, width), and the tokens without a place, if any."""
        if self.layout == "NCHW":
            return (activation,)
        if self.layout == "NHWC":
            return (activation.movedim(-1, 1),)
        places = activation[:, self.extra :].transpose(1, 2).unflatten(2, self.size)
        return (places, activation[:, : self.extra]) if self.extra else (places,)

    def join(self, places: Tensor, *rest: Tensor) -> Tensor:
        """The activation of which `split` gave these."""
        if self.layout == "NCHW":
            return places
        if self.layout == "NHWC":
            return places.movedim(1, -1)
        return torch.cat([*rest, places.flatten(2).transpose(1, 2)], 1)


class _Following(nn.Module):
    """What follows a pivot, as captum wants it: a module with a layer of (N, C, H, W)."""

    def __init__(self, grid: Grid, score: Score) -> None:
        super().__init__()
        self.grid, self.score, self.layer = grid, score, nn.Identity()

    def forward(self, places: Tensor, *rest: Tensor) -> Tensor:
        """The label's log-odds, (1,)."""
        return self.score(self.grid.join(self.layer(places), *rest))


def maps_of(
    pivot: str, before: Tensor, refined: Tensor | None, scores: tuple[Score, Score], grid: Grid
) -> Maps:
    """Where a label's log-odds come from. Call it in grad mode.

    `before` and `refined` are the activation at the pivot, (1, ...); `scores` say what follows
    from it in the unrefined network, and with all other pivots refined.
    """
    from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam

    plain, moved = (_Following(grid, score) for score in scores)
    old = _leaves(grid, before)
    camera = LayerGradCam(plain, plain.layer).attribute(old, relu_attributions=False)
    assert isinstance(camera, Tensor), "the layer has one output"
    if refined is None:
        return Maps(pivot, _map(camera))
    new = _leaves(grid, refined)
    product = InputXGradient(moved).attribute(new)
    path = IntegratedGradients(moved)
    change = path.attribute(new, baselines=old, n_steps=STEPS, internal_batch_size=1)
    elsewhere = float(sum(part.detach().double().sum() for part in change[1:]))
    return Maps(pivot, _map(camera), _map(product[0]), _map(change[0]), elsewhere)


def _leaves(grid: Grid, activation: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.detach().clone().requires_grad_() for part in grid.split(activation))


def _map(values: Tensor) -> Tensor:
    """The sum over channels, (height, width), of (1, channels, height, width)."""
    return values.detach().double().cpu()[0].sum(0)
