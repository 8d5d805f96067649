"""An object is in one piece: the part of a mask that hangs together around a point."""

import torch
import torch.nn.functional as F
from torch import Tensor

SEEN = 0.5  # a pixel belongs to an instance above this probability
BRIDGE = 3  # pixels less than this apart hang together
NEAR = 0.5  # standard deviation of where the piece begins, in half sides of the image
SMOOTH = 9  # pixels over which the mask is averaged to find the beginning


def one_piece(mask: Tensor, centre: Tensor) -> Tensor:
    """1 for the pixels around the piece of a mask that is large and near a point, 0 elsewhere.

    Args:
        mask: (H, W), from 0 to 1.
        centre: y and x of the point, from -1 to 1.

    Returns:
        (H, W): 1 in the piece and in `BRIDGE` pixels around it.
    """
    height, width = mask.shape
    y = (torch.arange(height) * 2 + 1) / height - 1 - centre[0]
    x = (torch.arange(width) * 2 + 1) / width - 1 - centre[1]
    near = torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * NEAR**2))
    on = (mask > SEEN).float()[None, None]
    smooth = F.avg_pool2d(on, SMOOTH, 1, SMOOTH // 2)[0, 0]
    start = int((smooth * near * on[0, 0]).argmax())
    piece = torch.zeros_like(on).flatten()
    piece[start] = 1
    piece = piece.view_as(on)
    size = -1.0
    while (now := float((piece * on).sum())) > size:
        size = now
        for _ in range(8):
            rows = F.max_pool2d(piece * on, (2 * BRIDGE - 1, 1), 1, (BRIDGE - 1, 0))
            piece = F.max_pool2d(rows, (1, 2 * BRIDGE - 1), 1, (0, BRIDGE - 1))
    return piece[0, 0]
