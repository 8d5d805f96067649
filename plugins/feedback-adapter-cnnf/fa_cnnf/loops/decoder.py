"""Decoder mode: feedback for a frozen pretrained model, by small decoders that are learned.

Tied feedback needs weights that were trained for it. Here each stage's activation h_l is
moved towards what a decoder makes of the one above, h_l += gamma_l (d_l(h_{l+1}) - h_l), with
gamma_l = 0 at first, so that the wrapped model starts bit for bit as it was. It is meant for
noisy and blurred images; it promises nothing against attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fa_cnnf.errors import DecoderError
from fa_cnnf.loops.base import Loop, Unroll
from feedback_adapter.errors import OptionsError
from feedback_adapter.sites import Inputs, Site, Tail, frozen

__all__ = ["KINDS", "Decoder", "DecoderLoop", "decoders"]

KINDS = ("multiclass", "multilabel")


class Decoder(nn.Module):
    """An activation from the one above: 1 x 1 convolution, upsampling, 3 x 3 convolution.

    Args:
        above: Channels of what it gets.
        below: Channels of what it makes.
        width: Channels in between, at least 1.
    """

    def __init__(self, above: int, below: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(above, width, 1)
        self.widen = nn.Conv2d(width, below, 3, padding=1)

    def forward(self, h: Tensor, size: Sequence[int]) -> Tensor:
        """(batch, above, h', w') or (batch, above) to (batch, below, *size)."""
        h = h if h.ndim == 4 else h[:, :, None, None]
        h = F.interpolate(torch.relu(self.narrow(h)), size=tuple(size), mode="nearest")
        return self.widen(h)


class DecoderLoop(Loop):
    """A frozen model with decoders; `decoders` makes one, `fa_cnnf.fit_decoders` trains it.

    Args:
        model: Used as it is, in evaluation mode, never changed.
        sites: Names of its stages, in forward order.
        parts: A decoder per stage; the last one's input is the model's posterior.
        channels: Of each stage.
        steps: T, feedback iterations of `forward`, at least 0.
        kind: What the logits are: `"multiclass"` or `"multilabel"`.

    Attributes:
        gammas: Per stage (1, channels, 1, 1), how far it moves towards its reconstruction.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[str],
        parts: Sequence[Decoder],
        channels: Sequence[int],
        steps: int = 1,
        kind: str = "multiclass",
    ) -> None:
        super().__init__(steps)
        if kind not in KINDS:
            raise OptionsError(f"kind={kind!r} is not possible: {', '.join(KINDS)} are.")
        self.model, self.sites, self.kind = model, tuple(sites), kind
        self.decoders = nn.ModuleList(parts)
        self.gammas = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in channels)

    def unroll(
        self,
        x: Any,
        steps: int | None = None,
        clamp: Callable[[Tensor], Tensor] | None = None,
        read: Callable[[Any], Tensor] | None = None,
    ) -> Unroll:
        """All iterates of images; autograd sees decoders and gammas, not the frozen model.

        Args:
            x: Images (batch, ...), or whatever else the model is called with.
            steps: T, at least 0 (default: `self.steps`).
            clamp: What the top decoder generates from, given raw logits: fix in it what is
                known. `None` generates from the logits themselves.
            read: Takes logits (batch, classes) out of what the model returns.

        Returns:
            The iterates; `features` and `reconstructions` are those of the lowest stage.

        Raises:
            OptionsError: `steps` is negative.
            SiteError: A stage isn't in the model.
        """
        take = read or _as_it_is
        with frozen(self.model):
            with torch.no_grad():
                tail = Tail.record(self.model, Inputs.of(x), list(self.sites))
            h = [a.detach() for a in tail.activations]
            logits, features, reconstructions = [take(tail.value).detach()], [h[0]], []
            for _ in range(self.iterations(steps)):
                top = logits[-1] if clamp is None else clamp(logits[-1])
                back = self.reconstruct(h, top)
                seen: list[Tensor] = []
                edits = [self._edit(i, h[0], back[i], seen) for i in range(len(h))]
                logits.append(take(tail.run(edits)))
                h = seen
                features.append(h[0])
                reconstructions.append(back[0])
        return Unroll(torch.stack(logits), tuple(features), tuple(reconstructions), {}, {})

    def reconstruct(self, h: Sequence[Tensor], logits: Tensor) -> list[Tensor]:
        """What the decoders make of each stage's upper neighbour, lowest stage first.

        Args:
            h: Activations of the stages, each (batch, channels, height, width).
            logits: (batch, classes).
        """
        above = [*h[1:], self.posterior(logits)]
        return [
            decoder(a, below.shape[2:])
            for decoder, a, below in zip(self.decoders, above, h, strict=True)
        ]

    def posterior(self, logits: Tensor) -> Tensor:
        """Probabilities (batch, classes): the softmax's, or each label's own."""
        return logits.softmax(1) if self.kind == "multiclass" else logits.sigmoid()

    def _edit(
        self, index: int, lowest: Tensor, back: Tensor, seen: list[Tensor]
    ) -> Callable[[Tensor], Tensor]:
        def edit(arrived: Tensor) -> Tensor:
            h = arrived if index else lowest  # the lowest stage keeps what it has become
            seen.append(h + self.gammas[index] * (back - h))
            return seen[-1]

        return edit

    def train(self, mode: bool = True) -> DecoderLoop:
        """Set the mode of the decoders; the model stays as its owner left it."""
        self.training = mode
        self.decoders.train(mode)
        return self

    def extra_repr(self) -> str:
        """The options, for `print(loop)`."""
        return f"sites={self.sites}, steps={self.steps}, kind={self.kind!r}"


def _as_it_is(value: Any) -> Tensor:
    return value


def decoders(
    model: nn.Module,
    images: Any,
    sites: Sequence[str | Site],
    *,
    steps: int = 1,
    kind: str = "multiclass",
    width: int = 256,
) -> DecoderLoop:
    """Put untrained decoders on a frozen model. It predicts what it did, bit for bit.

    Args:
        model: Returns logits (batch, classes). It isn't changed.
        images: Some images, one is enough: they say what shapes activations have.
        sites: Its stages (of `Adapter.sites`), each (batch, channels, height, width).
        steps: T, feedback iterations, at least 0.
        kind: `"multiclass"` or `"multilabel"`.
        width: Most channels inside a decoder; a stage with fewer channels gets as many.

    Raises:
        DecoderError: A stage isn't (batch, channels, height, width), or there is none.
        OptionsError: An option is out of range.
        SiteError: A stage isn't in the model.
    """
    if not sites:
        raise DecoderError("sites is empty: name at least one stage, see Adapter.sites(images).")
    if width < 1:
        raise OptionsError(f"width={width} is out of range: it must be at least 1.")
    with frozen(model), torch.no_grad():
        tail = Tail.record(model, Inputs.of(images), list(sites))
    shapes = [tuple(a.shape) for a in tail.activations]
    names = [site.name for site in tail.pivots]
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) != 4:
            raise DecoderError(
                f"{name!r} is {shape}: a decoder needs (batch, channels, height, width)."
            )
    value = tail.value
    if not isinstance(value, Tensor) or value.ndim != 2:
        raise DecoderError("The model must return one tensor of logits (batch, classes).")
    channels = [shape[1] for shape in shapes]
    above = [*channels[1:], value.shape[1]]
    parts = [Decoder(a, c, min(width, c)) for a, c in zip(above, channels, strict=True)]
    reference = next((p for p in model.parameters() if p.is_floating_point()), value)
    loop = DecoderLoop(model, names, parts, channels, steps, kind)
    for part in (loop.decoders, loop.gammas):
        part.to(device=reference.device, dtype=reference.dtype)
    return loop
