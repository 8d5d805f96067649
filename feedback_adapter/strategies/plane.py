"""The lowest place of a plane of activations, over which the tail is linear and the loss is not.

See docs/newton.md for the derivation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Outputs

SEARCH = 6
"""Iterations, at most, of the search in the plane, which costs next to nothing."""

ENOUGH = 1e-2
"""The search ends when no image's objective falls by more than this share of itself."""


class Plane:
    """The linearised tail over two directions: down the gradient, and along the change so far.

    Args:
        here: What the evidence reads of the outputs (`Evidence.read`) at the present point.
        there: The same at the probe, one unit down the gradient.
        unrefined: The same without a change, one unit back along it.
        gram: Inner products (batch,) of gradient direction and change: first with itself,
            first with second, second with itself.
        weight: What a unit of squared change costs (batch,), in nats times two.
        evidence: What is known.
    """

    def __init__(
        self,
        here: Outputs,
        there: Outputs,
        unrefined: Outputs,
        gram: tuple[Tensor, Tensor, Tensor],
        weight: Tensor,
        evidence: Evidence,
    ) -> None:
        self.gram, self.weight, self.evidence, self.specs = gram, weight, evidence, here.specs
        self.logits = {
            name: (exact(z), exact(there[name]) - exact(z), exact(z) - exact(unrefined[name]))
            for name, z in here.items()
        }

    def square(self, ahead: Tensor, back: Tensor) -> Tensor:
        """Squared length (batch,) of the change at a place."""
        first, mixed, second = self.gram
        kept = 1 + back
        return first * ahead * ahead + 2 * mixed * ahead * kept + second * kept * kept

    def objective(self, place: Tensor) -> Tensor:
        """Evidence loss and cost of the change (batch,), at (batch, 2)."""
        ahead, back = place.unbind(1)
        logits = {
            name: torch.addcmul(torch.addcmul(z, like(ahead, z), first), like(back, z), second)
            for name, (z, first, second) in self.logits.items()
        }
        loss = self.evidence.loss_of(Outputs(logits, self.specs))
        return loss + self.weight / 2 * self.square(ahead, back)

    @torch.enable_grad()
    def _expand(self, place: Tensor, both: Tensor, axes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Value (batch,), slope and curvature of the objective in the first one or two axes."""
        leaf = place.detach().requires_grad_()
        value = self.objective(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        rows = [
            torch.autograd.grad(slope[:, axis].sum(), leaf, retain_graph=axis + 1 < axes)[0]
            for axis in range(axes)
        ]
        curvature, slope = torch.stack(rows, 1).detach()[:, :, :axes], slope.detach()[:, :axes]
        if axes > 1:
            free = torch.stack([torch.ones_like(both), both], 1).to(slope)
            curvature = curvature * free[:, :, None] * free[:, None] + torch.diag_embed(1 - free)
            slope = slope * free
        return value.detach(), slope, curvature

    def lowest(self, both: Tensor) -> Tensor:
        """Where the objective is lowest (batch, 2), by Newton's method with Levenberg's damping.

        Args:
            both: (batch,) bool, which images are to move along the change so far as well.
        """
        axes = 2 if bool(both.any()) else 1
        place = torch.zeros(len(self.weight), 2, dtype=self.weight.dtype, device=self.weight.device)
        damping = torch.full_like(self.weight, 1e-6)
        going = torch.ones_like(damping, dtype=torch.bool)
        value, slope, curvature = self._expand(place, both, axes)
        for _ in range(SEARCH):
            diagonal = curvature.diagonal(dim1=1, dim2=2).abs()
            ridge = torch.diag_embed(damping[:, None] * diagonal + 1e-20)
            move, _ = torch.linalg.solve_ex(curvature + ridge, slope)
            trial = place.clone()
            trial[:, :axes] -= move.nan_to_num(0.0, 0.0, 0.0)
            found, *derivatives = self._expand(trial, both, axes)
            rounding = 8 * torch.finfo(value.dtype).eps * value.abs()
            lower = going & (found <= value + rounding)
            going = going & ((value - found > ENOUGH * value) | ~lower)
            place = torch.where(lower[:, None], trial, place)
            value = torch.where(lower, found, value)
            slope = torch.where(lower[:, None], derivatives[0], slope)
            curvature = torch.where(lower[:, None, None], derivatives[1], curvature)
            damping = torch.where(lower, damping / 10, damping.clamp(min=1e-2) * 10)
            if not bool(going.any()):
                break
        return place


def like(values: Tensor, tensor: Tensor) -> Tensor:
    """A number per image, (batch,), in the shape and type that multiplies a tensor."""
    return values.to(tensor.dtype).reshape(-1, *[1] * (tensor.ndim - 1))


def exact(tensor: Tensor) -> Tensor:
    """In float32 at least, and detached."""
    tensor = tensor.detach()
    return tensor if tensor.element_size() >= 4 else tensor.float()
