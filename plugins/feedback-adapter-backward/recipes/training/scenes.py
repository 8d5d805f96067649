"""Compose scenes of rendered objects on any device.

A picture is encoded so that nothing is 0: a pixel of colour c in [0, 1] becomes
`DARKEST + (1 - DARKEST) c`, and black differs from nothing.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DARKEST = 0.25
SIDE = 128  # pixels of a scene
CANONICAL = 0.625  # longer side of an object in its own frame, as a share of the scene's side
FILL = 0.94  # longer side of an object on its canvas, as a share of the canvas


@dataclass(frozen=True)
class Objects:
    """Rendered views: `pictures` (n, 4, s, s) of uint8, colour times alpha, then alpha."""

    pictures: Tensor
    category: Tensor

    def of(self, categories: tuple[int, ...]) -> "Objects":
        """Only those of some categories."""
        keep = torch.isin(self.category, torch.tensor(categories, device=self.category.device))
        return Objects(self.pictures[keep], self.category[keep])

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Pose:
    """Where objects stand: all (n,); `side` as a share of the scene, `x` and `y` in [-1, 1]."""

    side: Tensor
    x: Tensor
    y: Tensor
    flip: Tensor
    angle: Tensor

    @classmethod
    def canonical(cls, n: int, device, flip: float = 1.0) -> "Pose":
        """In the middle, upright, at the canonical size."""
        zero = torch.zeros(n, device=device)
        return cls(zero + CANONICAL, zero, zero, zero + flip, zero)

    @classmethod
    def random(cls, n: int, generator, low=0.47, high=0.72, turn=0.15) -> "Pose":
        """Inside the scene; sides from `low` to `high`, angles of at most `turn` radians."""
        u = lambda a, b: _uniform((n,), a, b, generator)  # noqa: E731
        side = u(low, high)
        room = (1 - side).clamp(min=0.05)
        flip = (u(0, 1) < 0.5).float() * 2 - 1
        return cls(side, u(-1, 1) * room, u(-1, 1) * room, flip, u(-turn, turn))


def place(pictures: Tensor, pose: Pose, gain: Tensor | None = None, size: int = SIDE) -> Tensor:
    """Objects (n, 4, s, s) of uint8 in the scene's frame: (n, 4, size, size), premultiplied."""
    zoom = FILL / pose.side
    cos, sin = torch.cos(pose.angle) * zoom, torch.sin(pose.angle) * zoom
    linear = torch.stack([cos * pose.flip, sin * pose.flip, -sin, cos], 1).view(-1, 2, 2)
    offset = -(linear @ torch.stack([pose.x, pose.y], 1)[..., None])
    grid = F.affine_grid(
        torch.cat([linear, offset], 2), [len(zoom), 4, size, size], align_corners=False
    )
    placed = F.grid_sample(pictures.float() / 255, grid, align_corners=False)
    if gain is None:
        return placed
    colour, alpha = placed[:, :3], placed[:, 3:]
    colour = torch.einsum("nij,njhw->nihw", gain, colour)
    return torch.cat([colour.clamp(min=0).minimum(alpha), alpha], 1)


def liveries(n: int, generator, strength: float = 0.2, swap: float = 0.3) -> Tensor:
    """Random colour matrices (n, 3, 3): brightness, tint, and sometimes channels swapped."""
    device = generator.device
    order = torch.rand(n, 3, generator=generator, device=device).argsort(1)
    swapped = torch.rand(n, 1, generator=generator, device=device) < swap
    order = torch.where(swapped, order, torch.arange(3, device=device))
    matrix = F.one_hot(order, 3).float() * _uniform((n, 1, 1), 0.7, 1.2, generator)
    return matrix * _uniform((n, 3, 1), 1 - strength, 1 + strength, generator)


def encode(layer: Tensor) -> Tensor:
    """A premultiplied layer (n, 4, h, w) alone on nothing: (n, 3, h, w)."""
    return DARKEST * layer[:, 3:] + (1 - DARKEST) * layer[:, :3]


def compose(layers: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """Paint layers (n, m, 4, h, w), back to front, over an encoded background (n, 3, h, w).

    Returns:
        The scene (n, 3, h, w), and each layer's visible share of each pixel (n, m, h, w).
    """
    scene, visible = background, []
    for layer in layers.unbind(1):
        clear = 1 - layer[:, 3:]
        scene = scene * clear + encode(layer)
        visible = [v * clear[:, 0] for v in visible] + [layer[:, 3]]
    return scene, torch.stack(visible, 1)


def _uniform(shape, low: float, high: float, generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low
