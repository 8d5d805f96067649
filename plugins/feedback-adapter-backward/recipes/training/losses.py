"""What the backbone is trained on: masks, classes, colours, and features that compose."""

import torch
import torch.nn.functional as F
from backbone import CATEGORIES, STRIDES, TOP, Backbone, Heads
from examples import Scenes
from scenes import SIDE
from torch import Tensor

COMPOSE = {"pool1": 0.05, "pool2": 0.25, "pool3": 0.5, "pool4": 0.5, TOP: 1.0}
SILENT = {"pool1": 0.0, "pool2": 0.1, "pool3": 0.3, "pool4": 0.3, TOP: 0.5}
MASKS = {"pool2": 0.5, "pool3": 0.5, TOP: 2.0}
ALIVE = 0.2
LIVELY = 1.0  # what the strongest tenth of the objects should give each channel, in rms units


def parts(net: Backbone, heads: Heads, scenes: Scenes) -> dict[str, Tensor]:
    """All terms by name; `total` weighs them."""
    n = len(scenes.images)
    both = torch.cat([scenes.images, scenes.alone]).contiguous(memory_format=torch.channels_last)
    features, before = net(both)
    features = {site: f.float() for site, f in features.items()}
    own = F.one_hot(scenes.category, CATEGORIES).float()[..., None, None]
    masks = torch.cat([scenes.masks, own * scenes.target[:, None]])
    terms: dict[str, Tensor] = {}
    for site in MASKS:
        logits = heads.mask(site, features[site]).float()
        terms[f"mask {site}"] = F.binary_cross_entropy_with_logits(logits, masks) * CATEGORIES
    scores = net.classes(features[TOP]).float()
    share = F.avg_pool2d(masks, STRIDES[TOP])
    terms["cells"] = F.binary_cross_entropy_with_logits(scores, share) * CATEGORIES
    present = (masks.mean((2, 3)) > 0.01).float()
    terms["present"] = F.binary_cross_entropy_with_logits(scores.amax((2, 3)), present)
    colours = F.pixel_shuffle(heads.colours(features[TOP][n:]).float(), 4)
    terms["colours"] = F.mse_loss(colours, F.avg_pool2d(scenes.alone, SIDE // colours.shape[-1]))
    terms["alive"] = sum(_dead(before[site][n:].float()) for site in STRIDES) / len(STRIDES)
    for site, stride in STRIDES.items():
        scene, alone = features[site][:n], features[site][n:]
        support, empty = supports(scenes, alone, stride)
        terms[f"compose {site}"] = relative_change(scene, alone, support)
        terms[f"silent {site}"] = background_energy(scene, alone, support, empty)
    return terms


def total(terms: dict[str, Tensor], compositional: bool) -> Tensor:
    """The weighed sum; without `compositional` the features are free."""
    loss = sum(weight * terms[f"mask {site}"] for site, weight in MASKS.items())
    loss = loss + terms["cells"] + 0.5 * terms["present"] + 2 * terms["colours"]
    loss = loss + ALIVE * terms["alive"]
    if compositional:
        for site in STRIDES:
            loss = loss + COMPOSE[site] * terms[f"compose {site}"]
            loss = loss + SILENT[site] * terms[f"silent {site}"]
    return loss


def supports(scenes: Scenes, alone: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Cells (n, 1, h, w) that belong to the target and nothing hides, and cells near no object."""
    target, seen = scenes.target[:, None], scenes.seen[:, None]
    covered = F.avg_pool2d(target, stride)
    fires = (alone.detach().amax(1, keepdim=True) > 0) | (covered > 0)
    around = 3 * stride if stride < 16 else 2 * stride
    pad = (around - stride) // 2
    hidden = F.max_pool2d(target - seen, around, stride, pad) > 0.2
    anything = scenes.masks.amax(1, keepdim=True).maximum(target)
    empty = F.max_pool2d(anything, around, stride, pad) < 0.05
    return (fires & ~hidden) * (0.3 + 0.7 * covered), empty.float()


def relative_change(scene: Tensor, alone: Tensor, support: Tensor) -> Tensor:
    """Per channel, log(1 + sum w (scene - alone)^2 / sum w alone^2), averaged over channels."""
    change = (support * (scene - alone) ** 2).sum((0, 2, 3))
    return torch.log1p(change / _energy(alone, support)).mean()


def background_energy(scene: Tensor, alone: Tensor, support: Tensor, empty: Tensor) -> Tensor:
    """Per channel, log(1 + mean energy away from objects / that on the target), averaged."""
    away = (empty * scene**2).sum((0, 2, 3)) / empty.sum().clamp(min=1)
    here = _energy(alone, support) / support.sum().clamp(min=1)
    return torch.log1p(away / here).mean()


def _energy(alone: Tensor, support: Tensor) -> Tensor:
    energy = (support * alone**2).sum((0, 2, 3))
    return energy + 0.05 * energy.mean() + 1e-6  # rare channels don't dominate the mean


def _dead(before: Tensor) -> Tensor:
    strongest = before.amax((2, 3))
    count = max(1, len(strongest) // 10)
    return F.relu(LIVELY - strongest.topk(count, 0).values.mean(0)).mean()
