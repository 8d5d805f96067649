"""Training scenes: a target among other objects, on some background."""

from dataclasses import dataclass

import torch
from backgrounds import Backgrounds
from scenes import SIDE, Objects, Pose, compose, encode, liveries, place
from torch import Tensor

SHARES = (0.5, 0.25, 0.25)  # planes, ships, vehicles among the targets
BUILDING = 3
WITH_TWIN, WITH_CLUTTER, WITH_MORE_CLUTTER = 0.35, 0.5, 0.35


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes and what is true of them.

    Attributes:
        images: (n, 3, SIDE, SIDE), encoded.
        alone: (n, 3, SIDE, SIDE), the target on nothing, encoded.
        target: (n, SIDE, SIDE), the target's alpha, and `seen`, the part nothing hides.
        category: (n,), the target's category.
        masks: (n, 3, SIDE, SIDE), what is seen of each category.
    """

    images: Tensor
    alone: Tensor
    target: Tensor
    seen: Tensor
    category: Tensor
    masks: Tensor


class Sampler:
    """Draws scenes from banks of objects and backgrounds on one device."""

    def __init__(self, objects: Objects, backgrounds: Backgrounds, generator: torch.Generator):
        self.objects, self.backgrounds, self.generator = objects, backgrounds, generator
        members = [torch.where(objects.category == c)[0] for c in range(len(SHARES))]
        present = [share * (len(m) > 0) for share, m in zip(SHARES, members, strict=True)]
        self.shares = torch.tensor(present, device=generator.device)
        self.members = [m if len(m) else m.new_zeros(1) for m in members]

    def targets(self, n: int) -> Tensor:
        """Indices of objects, categories drawn by `SHARES` (of those that there are)."""
        g = self.generator
        category = torch.multinomial(self.shares, n, replacement=True, generator=g)
        return self._of(category)

    def draw(self, n: int) -> Scenes:
        """Targets at random poses."""
        index = self.targets(n)
        layer = self._placed(index, Pose.random(n, self.generator))
        return self.around(layer, self.objects.category[index])

    def around(self, target: Tensor, category: Tensor) -> Scenes:
        """Scenes around given target layers (n, 4, SIDE, SIDE)."""
        n, g = len(target), self.generator
        twin = self._of(category)
        clutter = torch.randint(len(self.objects), (2, n), generator=g, device=g.device)
        small = lambda: Pose.random(n, g, 0.25, 0.65, turn=0.3)  # noqa: E731
        layers = [
            target,
            self._some(self._placed(twin, Pose.random(n, g)), WITH_TWIN),
            self._some(self._placed(clutter[0], small()), WITH_CLUTTER),
            self._some(self._placed(clutter[1], small()), WITH_MORE_CLUTTER),
        ]
        kinds = torch.stack([category, category, *self.objects.category[clutter]], 1)
        order = torch.rand(n, len(layers), generator=g, device=g.device).argsort(1)
        rows = torch.arange(n, device=g.device)[:, None]
        images, visible = compose(torch.stack(layers, 1)[rows, order], self.backgrounds.draw(n, g))
        visible = visible[rows, order.argsort(1)]
        masks = torch.stack(
            [(visible * (kinds == c)[..., None, None]).sum(1) for c in range(len(SHARES))], 1
        )
        return Scenes(
            images, encode(target), target[:, 3], visible[:, 0], category, masks.clamp(0, 1)
        )

    def _placed(self, index: Tensor, pose: Pose) -> Tensor:
        gains = liveries(len(index), self.generator)
        return place(self.objects.pictures[index], pose, gains, SIDE)

    def _some(self, layer: Tensor, share: float) -> Tensor:
        draw = torch.rand(len(layer), generator=self.generator, device=layer.device)
        return layer * (draw < share)[:, None, None, None]

    def _of(self, category: Tensor) -> Tensor:
        pick = torch.rand(len(category), generator=self.generator, device=category.device)
        each = torch.stack([m[(pick * len(m)).long()] for m in self.members], 1)
        return each.gather(1, category[:, None])[:, 0]
