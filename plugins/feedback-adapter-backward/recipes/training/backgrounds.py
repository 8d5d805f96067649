"""Many kinds of background: nothing, plain, photographs, dead leaves, 1/f noise, collages."""

import torch
import torch.nn.functional as F
from scenes import DARKEST, SIDE, Objects, Pose, compose, liveries, place
from torch import Tensor

NOTHING, PLAIN = 0.12, 0.12  # shares of the scenes; the rest come from the bank


class Backgrounds:
    """A bank of pictures (n, 3, s, s) of uint8, cropped, turned over and recoloured when drawn."""

    def __init__(self, bank: Tensor):
        self.bank = bank

    def draw(self, n: int, generator, nothing: float = NOTHING, plain: float = PLAIN) -> Tensor:
        """Encoded backgrounds (n, 3, SIDE, SIDE)."""
        device = self.bank.device
        rand = lambda *shape: torch.rand(*shape, generator=generator, device=device)  # noqa: E731
        index = torch.randint(len(self.bank), (n,), generator=generator, device=device)
        pictures = crops(self.bank[index].float() / 255, rand)
        pictures = (pictures - 0.5) * (0.5 + 0.7 * rand(n, 1, 1, 1)) + 0.5
        pictures = (pictures + 0.4 * rand(n, 3, 1, 1) - 0.2).clamp(0, 1)
        kind = rand(n, 1, 1, 1)
        pictures = torch.where(kind < nothing + plain, rand(n, 3, 1, 1), pictures)
        return torch.where(kind < nothing, 0.0, DARKEST + (1 - DARKEST) * pictures)


def crops(pictures: Tensor, rand, smallest: float = 0.5) -> Tensor:
    """Random square crops of (n, 3, s, s), mirrored half the time, at SIDE pixels."""
    n, device = len(pictures), pictures.device
    share = smallest + (1 - smallest) * rand(n)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0] = share * (2.0 * (rand(n) < 0.5) - 1)
    theta[:, 1, 1] = share
    theta[:, :, 2] = (2 * rand(n, 2) - 1) * (1 - share[:, None])
    grid = F.affine_grid(theta, [n, 3, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False, padding_mode="reflection")


def dead_leaves(n: int, generator, size: int = 144, leaves: int = 60) -> Tensor:
    """Overlapping ellipses and boxes of one colour each: (n, 3, size, size) of uint8."""
    device = generator.device
    rand = lambda *shape: torch.rand(*shape, generator=generator, device=device)  # noqa: E731
    axis = torch.arange(size, device=device, dtype=torch.float32)
    y, x = axis[None, :, None], axis[None, None, :]
    picture = rand(n, 3, 1, 1).expand(-1, -1, size, size).clone()
    for _ in range(leaves):
        centre = (1.2 * rand(n, 2, 1, 1) - 0.1) * size
        radius = 0.05 * size / (rand(n, 1, 1) + 0.01).sqrt()
        flat, angle = 0.15 + 0.85 * rand(n, 1, 1), 3.1416 * rand(n, 1, 1)
        u = (x - centre[:, 0]) * angle.cos() + (y - centre[:, 1]) * angle.sin()
        v = (y - centre[:, 1]) * angle.cos() - (x - centre[:, 0]) * angle.sin()
        ellipse = u**2 + (v / flat) ** 2 < radius**2
        box = (u.abs() < radius) & (v.abs() < radius * flat)
        inside = torch.where(rand(n, 1, 1) < 0.5, ellipse, box) & (rand(n, 1, 1) < 0.7)
        grain = 0.16 * rand(n, 1, 1, 1) * (rand(n, 1, size, size) - 0.5)
        picture = torch.where(inside[:, None], rand(n, 3, 1, 1) + grain, picture)
    return _bytes(picture)


def noise(n: int, generator, size: int = 144) -> Tensor:
    """Coloured noise whose spectrum falls as a random power of the frequency: uint8."""
    device = generator.device
    rand = lambda *shape: torch.rand(*shape, generator=generator, device=device)  # noqa: E731
    frequency = torch.fft.fftfreq(size, device=device)
    radius = (frequency[:, None] ** 2 + frequency[None] ** 2).sqrt()
    radius[0, 0] = 1
    white = torch.randn(n, 3, size, size, generator=generator, device=device)
    field = torch.fft.ifft2(torch.fft.fft2(white) / radius ** (0.6 + 1.2 * rand(n, 1, 1, 1))).real
    mixing = torch.eye(3, device=device) * rand(n, 1, 1) + rand(n, 3, 3)
    field = torch.einsum("nij,njhw->nihw", mixing, field)
    field = field / field.std((1, 2, 3), keepdim=True)
    return _bytes(rand(n, 3, 1, 1) + field * (0.05 + 0.25 * rand(n, 1, 1, 1)))


def collages(n: int, objects: Objects, generator, pieces: int = 8) -> Tensor:
    """Crowds of objects that are nobody's target, at all sizes: (n, 3, SIDE, SIDE) of uint8."""
    device = generator.device
    layers = []
    for _ in range(pieces):
        index = torch.randint(len(objects), (n,), generator=generator, device=device)
        pose = Pose.random(n, generator, 0.2, 1.4, turn=0.3)
        layers.append(place(objects.pictures[index], pose, liveries(n, generator)))
    ground = torch.rand(n, 3, 1, 1, generator=generator, device=device)
    ground = DARKEST + (1 - DARKEST) * ground.expand(-1, -1, SIDE, SIDE)
    scene, _ = compose(torch.stack(layers, 1), ground)
    return _bytes((scene - DARKEST) / (1 - DARKEST))


def _bytes(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)
