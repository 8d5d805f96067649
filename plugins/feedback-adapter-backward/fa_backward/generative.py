"""The generative model of a network's activations: templates on top, decoders below."""

from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from fa_backward.colours import log_density
from fa_backward.decoder import OFF, Decoder
from fa_backward.gated import Posterior, log_odds, posterior
from fa_backward.observation import ON, Observation
from fa_backward.templates import Templates

IMAGE = "image"
VALUES = 0.1  # weight of the values' Gaussian against the gates' cross-entropy, in training


class Activations(nn.Module):
    """P(F, H) over all sites of one object, and P(scene | F) at each of them.

    Sites are numbered from the top: level 0 has the templates, the last level is the image.

    Args:
        shapes: (C, H, W) of each site, the top first and the image (`image`) last.
        categories: Names.
        templates: K of the top.
        components: K of each other level.
        hidden: Channels inside each decoder.
    """

    def __init__(
        self,
        shapes: dict[str, tuple[int, int, int]],
        categories: tuple[str, ...],
        templates: int = 500,
        components: int = 4,
        hidden: int = 96,
    ):
        super().__init__()
        self.shapes, self.names, self.categories = dict(shapes), tuple(shapes), tuple(categories)
        self.observations = nn.ModuleList(
            Observation(shape[0], image=name == IMAGE) for name, shape in shapes.items()
        )
        sizes = list(shapes.values())
        self.templates = Templates(sizes[0], templates, len(categories))
        self.decoders = nn.ModuleList(
            Decoder(
                above[0],
                below[0],
                components,
                below[1] // above[1],
                gates=1 if below is sizes[-1] else below[0],
                hidden=hidden if below is not sizes[-1] else min(hidden, 32),
            )
            for above, below in pairwise(sizes)
        )
        for level, upper in enumerate([templates, *[components] * (len(sizes) - 2)], 1):
            even = torch.full((upper, components), 1 / components).log()
            self.register_buffer(f"log_bigram{level}", even)

    def normalise(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Activations by name to normalised activations by level."""
        pairs = zip(self.names, self.observations, strict=True)
        return [observation.normalise(features[name]) for name, observation in pairs]

    def top(self, index: Tensor, found: Tensor | None = None) -> Posterior:
        """The top's elements under some templates; without `found`, what they expect."""
        logit, mean = self.templates.logit[index], self.templates.mean[index]
        return self.settle(0, logit, mean, found)

    def predict(self, level: int, above: Tensor) -> tuple[Tensor, Tensor]:
        """All K predictions of a level: gate logits (n, K, ...) and means (n, K, C, H, W)."""
        logit, mean = self.decoders[level - 1](above)
        if logit.shape[2] == 1:
            return logit, mean
        alive = self.observations[level].alive[:, None, None] > 0
        return torch.where(alive, logit, OFF), mean

    def settle(
        self,
        level: int,
        logit: Tensor,
        mean: Tensor,
        found: Tensor | None,
        log_background: Tensor | None = None,
    ) -> Posterior:
        """Combine predictions of a level with the scene's normalised activations there.

        Args:
            level: Which one.
            logit: Gates, broadcasts with `mean`.
            mean: (..., C, H, W).
            found: Broadcasts with `mean`; None leaves the prediction as it is.
            log_background: In place of the level's own histogram.
        """
        on = torch.sigmoid(logit)
        observation = self.observations[level]
        if found is None:
            return Posterior(on * mean, torch.zeros_like(on), on, torch.ones_like(on))
        if log_background is None:
            log_background = self.log_background(level, found)
        visible, noise = self.visible(level), self.noise(level)
        result = posterior(logit, mean, self.spread(level), found, noise, log_background, visible)
        if on.shape[-3] == 1:
            return result
        alive = observation.alive[:, None, None]
        return Posterior(
            result.value * alive, result.log_odds * alive, result.on * alive, result.seen
        )

    def odds(self, level: int, logit: Tensor, mean: Tensor, found: Tensor, background=None):
        """The log-odds of `settle`, summed over each hypothesis: (...,) in float64, in nats."""
        if background is None:
            background = self.log_background(level, found)
        gate = torch.sigmoid(logit).mul_(min(max(self.visible(level), 1e-6), 1 - 1e-6))
        if gate.shape[-3] > 1:
            gate = gate.mul_(self.observations[level].alive[:, None, None])
        variance = self.spread(level) ** 2 + self.noise(level) ** 2
        return log_odds(gate, mean, variance, found, background)

    def visible(self, level: int) -> float:
        """v of a level."""
        return float(self.observations[level].visible)

    def spread(self, level: int) -> Tensor:
        """s0 of a level, (C, 1, 1)."""
        return self.decoders[level - 1].spread if level else self.templates.spread[:, None, None]

    def noise(self, level: int) -> Tensor:
        """s1 of a level, (C, 1, 1)."""
        return self.observations[level].noise[:, None, None]

    def log_background(self, level: int, found: Tensor) -> Tensor:
        """log density of normalised activations under a level's background, same shape."""
        return self.observations[level].log_background(found)

    def scene_background(self, images: Tensor, logit: Tensor) -> Tensor | None:
        """log density of an image's pixels under its own colours, outside all predictions.

        Args:
            images: (n, 3, H, W), normalised.
            logit: (n, K, 1, H, W), gates of the image's predictions.
        """
        scale = self.observations[-1].scale
        hull = F.max_pool2d(torch.sigmoid(logit).amax(1), 3, 1, 1)
        return log_density(images * scale[:, None, None], 1 - hull, scale)

    def gates(self, index: Tensor) -> Tensor:
        """For each of some templates, the probability that an element is on and seen."""
        observation = self.observations[0]
        seen = observation.visible * observation.alive[:, None, None]
        return torch.sigmoid(self.templates.logit[index]) * seen

    def mismatch(self, level: int, logit: Tensor, mean: Tensor, target: Tensor, alpha: Tensor):
        """How badly each prediction fits the object's true activations, (n, K).

        Args:
            level: Which one.
            logit: (n, K, gates, H, W), from `predict`.
            mean: (n, K, C, H, W), from `predict`.
            target: (n, C, H, W), normalised activations of the object alone.
            alpha: (n, 1, H', W'), its mask in the image.
        """
        target = target[:, None]
        on = (alpha[:, None] > 0.5).float() if logit.shape[2] == 1 else (target > ON).float()
        gates = F.binary_cross_entropy_with_logits(logit, on.expand_as(logit), reduction="none")
        spread = self.decoders[level - 1].spread
        values = on * (0.5 * (target - mean) ** 2 / spread**2 + torch.log(spread))
        count = on.expand_as(target).sum((2, 3, 4)).clamp(min=1)
        return gates.mean((2, 3, 4)) + VALUES * values.sum((2, 3, 4)) / count

    def log_bigram(self, level: int) -> Tensor:
        """log P(component of this level | component above), (K above, K)."""
        return getattr(self, f"log_bigram{level}")
