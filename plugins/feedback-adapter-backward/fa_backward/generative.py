"""The generative model of a network's activations: templates on top, decoders below."""

import torch
import torch.nn as nn
from torch import Tensor

from fa_backward.decoder import OFF, Decoder
from fa_backward.gated import Posterior, posterior
from fa_backward.observation import Observation
from fa_backward.templates import Templates

IMAGE = "image"


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
                hidden if below[0] > 3 else 32,
                components,
                factor=below[1] // above[1],
                one_gate=below is sizes[-1],
            )
            for above, below in zip(sizes[:-1], sizes[1:], strict=True)
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
            log_background = observation.log_background(found)
        spread = self.decoders[level - 1].spread if level else self.templates.spread[:, None, None]
        noise = observation.noise[:, None, None]
        result = posterior(
            logit, mean, spread, found, noise, log_background, float(observation.visible)
        )
        if on.shape[-3] == 1:
            return result
        alive = observation.alive[:, None, None]
        return Posterior(
            result.value * alive, result.log_odds * alive, result.on * alive, result.seen
        )

    def log_bigram(self, level: int) -> Tensor:
        """log P(component of this level | component above), (K above, K)."""
        return getattr(self, f"log_bigram{level}")
