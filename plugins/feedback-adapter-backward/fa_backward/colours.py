"""The background of this one scene, at the image: a histogram of its colours."""

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 12  # per colour channel
UNIFORM = 0.1  # share of the density that is spread evenly over all colours
RANGE = 0.8  # side of the cube of colours over which it is spread, in the image's units


def log_density(images: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """log p(colour) of each pixel under the colours of the weighted pixels, per channel.

    The three channels' density is joint; each channel gets a third of its logarithm, so that
    a sum over channels gives it back.

    Args:
        images: (n, 3, H, W), encoded: from 0 to 1.
        weight: (n, 1, H, W), how much each pixel belongs to the background.
        scale: (3,), the unit in which densities are asked for.
    """
    n = len(images)
    red, green, blue = (images * BINS).long().clamp(0, BINS - 1).unbind(1)
    index = ((red * BINS + green) * BINS + blue).flatten(1)
    counts = torch.zeros(n, BINS**3, device=images.device)
    counts.scatter_add_(1, index, weight.flatten(1))
    side = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    kernel = side[:, None, None] * side[None, :, None] * side[None, None, :]
    smooth = F.conv3d(counts.view(n, 1, BINS, BINS, BINS), kernel[None, None], padding=1)
    share = smooth.view(n, -1) / counts.sum(1, keepdim=True).clamp(min=1e-6)
    unit = scale.prod()
    density = (1 - UNIFORM) * share * BINS**3 * unit + UNIFORM * unit / RANGE**3
    return (density.gather(1, index).log() / 3).view(n, 1, *images.shape[2:]).expand_as(images)
