"""Estimating the whole model: observations, templates, decoders."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_backward.generative import Activations
from fa_backward.learning import Pairs
from fa_backward.top import Network

HIDDEN = 0.2  # a cell with more than this share of hidden pixels near it counts as hidden
CHUNK = 64


@dataclass(frozen=True)
class Scenes:
    """Objects in scenes and on nothing.

    Attributes:
        images: (n, 3, H, W), scenes.
        alone: (n, 3, H, W), the objects on nothing.
        alpha: (n, 1, H, W), the objects' masks.
        seen: (n, 1, H, W), the part that nothing hides.
    """

    images: Tensor
    alone: Tensor
    alpha: Tensor
    seen: Tensor


def activations(network: Network, images: Tensor) -> dict[str, Tensor]:
    """Activations of any number of images, in chunks."""
    parts = [network(piece) for piece in images.split(CHUNK)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def fit_observations(model: Activations, network: Network, scenes: Scenes) -> dict[str, dict]:
    """Fit every site; what `Observation.fit` reports, by site."""
    found, alone = activations(network, scenes.images), activations(network, scenes.alone)
    report = {}
    for name, observation in zip(model.names, model.observations, strict=True):
        stride = scenes.alpha.shape[-1] // model.shapes[name][2]
        hidden = near(scenes.alpha - scenes.seen, stride) > HIDDEN
        covered = F.avg_pool2d(scenes.alpha, stride)
        report[name] = observation.fit(found[name], alone[name], covered, hidden)
    return report


@torch.no_grad()
def speaks_for(model: Activations, batch: Pairs) -> dict[str, float]:
    """For each site, the share of true objects whose log-odds are above 0.

    On top it is those of an object's own template; below, of the best component of what the
    object's true activations above predict.
    """
    logit, mean = model.templates.logit[batch.template], model.templates.mean[batch.template]
    odds = [model.odds(0, logit, mean, batch.found[0])]
    for level in range(1, len(model.names)):
        logit, mean = model.predict(level, batch.alone[level - 1])
        scene, background = batch.found[level], None
        if level == len(model.names) - 1:
            background = model.scene_background(scene, logit)
        if background is None:
            background = model.log_background(level, scene)
        each = model.odds(level, logit, mean, scene[:, None], background[:, None])
        odds.append(each.amax(1))
    shares = [float((each > 0).double().mean()) for each in odds]
    return dict(zip(model.names, shares, strict=True))


def near(pixels: Tensor, stride: int) -> Tensor:
    """The largest value in each cell and in half a cell (or more) around it."""
    around = 1 if stride == 1 else 2 * stride if stride >= 16 else 3 * stride
    return F.max_pool2d(pixels, around, stride, (around - stride) // 2)


def fit_templates(
    model: Activations, network: Network, objects: Tensor, category: Tensor, shares: list[int]
) -> Tensor:
    """Cluster objects on nothing, in their own frames: (n, 3) nearest templates of each."""
    top = model.observations[0]
    found = [top.normalise(network(piece)[model.names[0]]).half() for piece in objects.split(CHUNK)]
    return model.templates.fit(torch.cat(found), category, shares)


def pairs(model: Activations, network: Network, scenes: Scenes, template: Tensor) -> Pairs:
    """A batch for the decoders."""
    return Pairs(
        template,
        model.normalise(network(scenes.images)),
        model.normalise(network(scenes.alone)),
        scenes.alpha,
    )


def paste(objects: Tensor, masks: Tensor, backgrounds: Tensor) -> Scenes:
    """Objects (n, 3, H, W) in front of backgrounds of the same shape, nothing hidden."""
    return Scenes(objects + (1 - masks) * backgrounds, objects, masks, masks)


Draw = Callable[[Tensor], Scenes]
"""Indices of objects to scenes of them in their own frames."""


class Drawer:
    """Batches of pairs: random objects, each with one of its nearest templates."""

    def __init__(self, model, network, draw: Draw, nearest: Tensor, batch: int, generator):
        self.model, self.network, self.draw = model, network, draw
        self.nearest, self.batch, self.generator = nearest, batch, generator

    def __call__(self) -> Pairs:
        """Draw a batch."""
        device = self.generator.device
        index = torch.randint(
            len(self.nearest), (self.batch,), generator=self.generator, device=device
        )
        which = torch.randint(
            self.nearest.shape[1], (self.batch,), generator=self.generator, device=device
        )
        with torch.no_grad():
            scenes = self.draw(index)
            return pairs(self.model, self.network, scenes, self.nearest[index, which])
