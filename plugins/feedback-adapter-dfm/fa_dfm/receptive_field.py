"""How much of an image one step sees: where it sees everything, looking again has little to add."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

__all__ = ["ReceptiveField", "receptive_field"]

_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """What the features in the middle of an image depend on.

    Args:
        height: In pixels, of the box that holds every pixel with a gradient.
        width: Likewise.
        image: Height and width of the image that this was measured on.
    """

    height: int
    width: int
    image: tuple[int, int]

    @property
    def covers(self) -> bool:
        """Whether one step sees the whole image."""
        return self.height >= self.image[0] and self.width >= self.image[1]

    def __str__(self) -> str:
        seen = f"One step sees {self.height} x {self.width} of {self.image[0]} x {self.image[1]}"
        if self.covers:
            return f"{seen} pixels, the whole image: expect nothing from feedback without evidence."
        return f"{seen} pixels: feedback can bring in the rest, step by step."


def receptive_field(
    model: nn.Module, frontier: nn.Module, images: Tensor
) -> tuple[int, ReceptiveField]:
    """Measure it by the gradient of the features in the middle.

    Normalisations over the image are left out: they pass on how bright and how contrasty it
    is, not what is where. Weights that start at zero, as those of many residual branches do,
    are drawn at random, since training moves them.

    Args:
        model: Of our own, in evaluation mode; a copy of it is measured.
        frontier: Name of the module in it whose output is the features.
        images: (batch, channels, height, width).

    Returns:
        How many channels the features have, and what one of them sees.
    """
    model = copy.deepcopy(model).double()  # without norms, numbers may get large
    generator = torch.Generator(images.device).manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(generator=generator)
    seen: list[Tensor] = []
    norms = [m for m in model.modules() if isinstance(m, _NORMS)]
    for norm in norms:
        norm.register_forward_hook(lambda _module, args, _out: args[0])
    model.get_submodule(frontier).register_forward_hook(lambda _m, _a, out: seen.append(out))
    image = images.double().clone().requires_grad_()
    with torch.enable_grad():
        model(image)
        u = seen[0]
        middle = u[:, :, u.shape[2] // 2, u.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, image)
    touched = (gradient != 0).any(0).any(0)
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    spans = [int(x[-1] - x[0]) + 1 if len(x) else 0 for x in (rows, columns)]
    field = ReceptiveField(spans[0], spans[1], (images.shape[2], images.shape[3]))
    return u.shape[1], field
