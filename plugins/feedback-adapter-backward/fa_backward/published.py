"""The model exactly as published: no gates, thresholds, one convolution per component."""

from itertools import pairwise

import torch
from torch import Tensor

from fa_backward.decoder import Decoder
from fa_backward.em import hard_em
from fa_backward.gated import Posterior
from fa_backward.generative import Activations
from fa_backward.thresholded import Thresholds, fit_thresholds, log_normal, map_elements

CANDIDATES = 20  # thresholds that are tried, evenly spaced up to the largest useful one
HIGHEST = 1.0  # in normalised units, where an active channel's rms is 1


class Published(Activations):
    """The published model, with the same interface as the gated one.

    Templates are means over their clusters; there are 5 components at the other sites. What
    the gated model calls log-odds is here the joint log-density of the MAP activations,
    compared with the scene as mere background, up to the constant of N(F_td; phi, s0).
    """

    def __init__(self, shapes, categories, templates: int = 500, components: int = 5):
        super().__init__(shapes, categories, templates, components, hidden=0)
        sizes = list(shapes.values())
        self.decoders = torch.nn.ModuleList(
            Decoder(above[0], below[0], components, below[1] // above[1], gates=0, hidden=0)
            for above, below in pairwise(sizes)
        )
        for level, size in enumerate(sizes):
            self.register_buffer(f"noise{level}", torch.ones(size[0], 1, 1))
            self.register_buffer(f"numbers{level}", torch.tensor([0.25, 0.0, 1.0]))

    def thresholds(self, level: int) -> Thresholds:
        """lambda, s1, beta and s2 of a level."""
        threshold, beta, background = getattr(self, f"numbers{level}").unbind()
        return Thresholds(threshold, getattr(self, f"noise{level}"), beta, background)

    def fit_thresholds(self, level: int, scene: Tensor, alone: Tensor) -> Tensor:
        """Estimate a level's thresholds from normalised activations; log-likelihoods tried."""
        candidates = torch.linspace(HIGHEST / CANDIDATES, HIGHEST, CANDIDATES)
        site, likelihoods = fit_thresholds(scene, alone, candidates)
        numbers = torch.stack([site.threshold, site.beta, site.background])
        getattr(self, f"numbers{level}").copy_(numbers)
        getattr(self, f"noise{level}").copy_(site.noise)
        return likelihoods

    def fit_decoders(self, alone: list[Tensor], template: Tensor, rounds: int = 8) -> list:
        """Hard EM level by level on objects alone; the objectives of each level's rounds."""
        parent, objectives = template, []
        for level, decoder in enumerate(self.decoders, 1):
            parents = len(self.log_bigram(level))
            parent, table, each = hard_em(
                decoder, alone[level - 1], alone[level], parent, parents, rounds
            )
            self.log_bigram(level).copy_(table)
            objectives.append(each)
        return objectives

    def predict(self, level: int, above: Tensor) -> tuple[Tensor, Tensor]:
        """All K predictions; there are no gates, so the means stand for them."""
        _, mean = self.decoders[level - 1](above)
        return mean, mean

    def log_background(self, level: int, found: Tensor) -> Tensor:
        """log N(found; beta, s2)."""
        site = self.thresholds(level)
        return log_normal(found, site.beta, site.background)

    def noise(self, level: int) -> Tensor:
        """s1 of a level, (C, 1, 1)."""
        return getattr(self, f"noise{level}")

    def scene_background(self, images: Tensor, logit: Tensor) -> None:
        """There is one background for all scenes."""

    def gates(self, index: Tensor) -> Tensor:
        """1 where a template's mean is above the threshold, and 0 elsewhere."""
        return (self.templates.mean[index] >= self.thresholds(0).threshold).float()

    def odds(self, level: int, logit: Tensor, mean: Tensor, found: Tensor, background=None):
        """The log-odds of `settle`, summed over each hypothesis. See `Activations.odds`."""
        settled = self.settle(level, logit, mean, found, background)
        return settled.log_odds.sum((-3, -2, -1), dtype=torch.float64)

    def settle(self, level, logit, mean, found, log_background=None) -> Posterior:
        """The MAP of each element. See `Activations.settle`."""
        del logit, log_background  # no gates, and one background for all scenes
        site = self.thresholds(level)
        if found is None:
            value, log_odds = mean, torch.zeros_like(mean)
        else:
            spread = self.spread(level)
            value, joint = map_elements(found, mean, spread, site)
            constant = log_normal(mean, mean, spread)
            log_odds = joint - constant - self.log_background(level, found)
        on = (value >= site.threshold).float()
        if level == len(self.names) - 1:
            on = on.amax(-3, keepdim=True)
        return Posterior(value, log_odds, on, torch.ones_like(on))
