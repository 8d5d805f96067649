"""Other ways to find the plane: each makes a map per image, cut at a threshold."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop, LayerGradCam
from skimage.filters import threshold_otsu
from skimage.measure import label
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]
"""Images (n, 3, H, W) to maps (n, H, W)."""

THRESHOLDS = torch.linspace(0.02, 0.98, 49)


def maps(net: nn.Sequential, mask_head: Map, category: int) -> dict[str, Map]:
    """Maps from 0 to 1 of every method but Otsu's, which has its own threshold.

    Args:
        net: The plain backbone, images to logits; its site `top` is what GradCAM looks at.
        mask_head: Probabilities of the head that the backbone was trained with.
        category: Whose logit is explained.
    """
    guided, cam = GuidedBackprop(net), LayerGradCam(net, net.top)

    def guided_backprop(images: Tensor) -> Tensor:
        found = guided.attribute(images.clone().requires_grad_(), target=category).abs().sum(1)
        return _to_one(F.avg_pool2d(found[:, None], 5, 1, 2)[:, 0].detach())

    def gradcam(images: Tensor) -> Tensor:
        found = cam.attribute(images.clone(), target=category, relu_attributions=True)
        large = F.interpolate(found.detach(), images.shape[2:], mode="bilinear")
        return _to_one(large[:, 0])

    return {"mask head": mask_head, "guided backprop": guided_backprop, "gradcam": gradcam}


def otsu(image: Tensor) -> Tensor:
    """Distance of each pixel from the border's median colour, above Otsu's threshold."""
    border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1)
    distance = (image - border.median(1).values[:, None, None]).norm(dim=0).numpy()
    return torch.from_numpy(distance > threshold_otsu(distance))


def best_threshold(found: Tensor, true: Tensor) -> float:
    """The threshold of maps (n, H, W) whose mean mask IoU with the truth is highest."""
    scores = []
    for threshold in THRESHOLDS:
        mask = found > threshold
        both, either = (mask & true).sum((1, 2)), (mask | true).sum((1, 2)).clamp(min=1)
        scores.append((both / either).mean())
    return float(THRESHOLDS[int(torch.stack(scores).argmax())])


def pieces(mask: Tensor, count: int = 2) -> list[Tensor]:
    """The largest connected parts of a mask, fewer if there are fewer."""
    parts = torch.from_numpy(label(mask.numpy()))
    sizes = torch.bincount(parts.flatten())
    sizes[0] = 0
    order = sizes.argsort(descending=True)[:count].tolist()
    return [parts == part for part in order if sizes[part]]


def iou(one: Tensor, other: Tensor) -> float:
    """Intersection over union of two masks of bool; 0 if both are empty."""
    return float((one & other).sum() / (one | other).sum().clamp(min=1))


def _to_one(found: Tensor) -> Tensor:
    return found / found.amax((1, 2), keepdim=True).clamp(min=1e-12)
