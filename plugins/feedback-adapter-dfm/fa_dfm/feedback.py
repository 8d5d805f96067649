"""A z: what is fed back to the first convolution, from predictions, features and evidence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from fa_dfm.errors import KnownError
from fa_dfm.known import Known
from fa_dfm.predictions import Kind, centred, uniform
from fa_dfm.state import State

__all__ = ["Feedback"]


class Feedback(nn.Module):
    """z = [e(p~), tanh(B u), m, m e(y)] and A, which starts at zero.

    p~ is the prediction with what is known put in, u the features, m what is known and y its
    labels. Maps and features enter by a convolution like the first one of the network; class
    predictions, which have no place in the image, by a linear map broadcast over it.

    Args:
        conv: The first convolution, whose kernel, stride and padding A copies.
        labels: K, outputs per image or pixel.
        kind: Whether one softmax decides between the labels, or each has a sigmoid.
        dense: Whether predictions are maps.
        channels: Of the features u.
        hidden: How many channels B makes of them; 0 for none.
        evidence: Whether known labels have channels of their own.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        *,
        labels: int,
        kind: Kind,
        dense: bool,
        channels: int,
        hidden: int,
        evidence: bool,
    ) -> None:
        super().__init__()
        self.labels, self.kind, self.dense, self.evidence = labels, kind, dense, evidence
        self.known_channels = 1 if kind == "multiclass" else labels
        told = self.known_channels + labels if evidence else 0
        spatial = (labels + told if dense else 0) + hidden
        self.read = nn.Conv2d(channels, hidden, 1, bias=False) if hidden else None
        self.maps = _zero(_like(conv, spatial)) if spatial else None
        self.classes = (
            None if dense else _zero(nn.Linear(labels + told, conv.out_channels, bias=False))
        )

    def forward(self, images: Tensor, state: State, known: Known | None, *, cut: bool) -> Tensor:
        """A z for one step, of the shape of the first convolution's output.

        Args:
            images: (batch, channels, height, width), of which only the shape is read.
            state: After the last step.
            known: What is known, or `None`.
            cut: Leave predictions and features out; evidence stays.

        Raises:
            KnownError: What is known doesn't fit these images and this network.
        """
        size = tuple(images.shape[2:]) if self.dense else ()
        if known is not None:
            self._check(known, (len(images), self.labels, *size))
        z = [self._prediction(images, state, known, size, cut=cut)]
        if self.evidence:
            z += self._evidence(images, known, size)
        spatial = z if self.dense else []
        if self.read is not None:
            spatial = [*spatial, self._hidden(images, state, cut=cut)]
        total = self.maps(torch.cat(spatial, 1)) if self.maps is not None else 0
        if self.classes is not None:
            total = total + self.classes(torch.cat(z, 1))[:, :, None, None]
        return total

    def _prediction(
        self,
        images: Tensor,
        state: State,
        known: Known | None,
        size: tuple[int, ...],
        *,
        cut: bool,
    ) -> Tensor:
        shape = (len(images), self.labels, *size)
        if cut:
            return images.new_zeros(shape)
        p = state.prediction
        if p is None:
            p = images.new_full(shape, uniform(self.labels, self.kind))
        elif self.dense:
            p = _resized(p, size)
        return centred(p if known is None else known.clamp(p), self.kind)

    def _evidence(self, images: Tensor, known: Known | None, size: tuple[int, ...]) -> list[Tensor]:
        if known is None:
            count = self.known_channels + self.labels
            return [images.new_zeros((len(images), count, *size))]
        weight = known.weight.to(images.dtype)
        return [weight, weight * centred(known.target.to(images.dtype), self.kind)]

    def _hidden(self, images: Tensor, state: State, *, cut: bool) -> Tensor:
        assert self.read is not None
        size = tuple(images.shape[2:])
        if cut or state.features is None:
            return images.new_zeros((len(images), self.read.out_channels, *size))
        return _resized(torch.tanh(self.read(state.features)), size)

    def _check(self, known: Known, shape: tuple[int, ...]) -> None:
        expected = (shape[0], self.known_channels, *shape[2:])
        if tuple(known.target.shape) != shape or tuple(known.weight.shape) != expected:
            raise KnownError(
                f"What is known has a target of shape {tuple(known.target.shape)} and a weight of "
                f"{tuple(known.weight.shape)}; this network needs {shape} and {expected}."
            )


def _zero(module: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    nn.init.zeros_(module.weight)
    return module


def _like(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A convolution without bias that gives maps of the same size as `conv`."""
    # timm pads these by the size of the image, which no fixed padding copies.
    kind = Conv2dSame if type(conv).__name__.endswith("Same") else nn.Conv2d
    padding = 0 if kind is Conv2dSame else conv.padding
    shape = {"stride": conv.stride, "padding": padding, "dilation": conv.dilation}
    return kind(channels, conv.out_channels, conv.kernel_size, bias=False, **shape)


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
