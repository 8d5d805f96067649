"""Frames: the image zoomed and shifted, so that templates of one size find objects of any."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """The image magnified by `zoom` about its middle, then moved by (`dy`, `dx`).

    Shifts are shares of half the image's side, as in `torch.nn.functional.affine_grid`.
    """

    zoom: float
    dy: float = 0.0
    dx: float = 0.0

    def look(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) as this frame sees them; outside the image there is 0."""
        return _resample(images, 1 / self.zoom, -self.dy / self.zoom, -self.dx / self.zoom)

    def back(self, pictures: Tensor) -> Tensor:
        """Pictures in this frame, (n, C, H, W), as they lie in the image."""
        return _resample(pictures, self.zoom, self.dy, self.dx)

    def place(self, y: float, x: float) -> tuple[float, float]:
        """A point of the frame in the image; coordinates from -1 to 1."""
        return (y - self.dy) / self.zoom, (x - self.dx) / self.zoom

    def around(self, y: float, x: float, zoom: float, dy: float, dx: float) -> "Frame":
        """A frame that has the image's point (y, x) in its middle, moved by (dy, dx)."""
        return Frame(zoom, dy - zoom * y, dx - zoom * x)


def _resample(images: Tensor, zoom: float, dy: float, dx: float) -> Tensor:
    theta = images.new_tensor([[zoom, 0.0, dx], [0.0, zoom, dy]]).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
