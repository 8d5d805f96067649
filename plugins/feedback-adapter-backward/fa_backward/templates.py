"""The mixture at the top: templates of whole objects, found by k-means within each category."""

import torch
import torch.nn as nn
from torch import Tensor

from fa_backward.observation import ON

PROJECTED = 256  # distances are taken between random projections of this size
CAP = 6.0  # normalised activations are cut here before clustering
SPREAD = (0.1, 2.0)
PROBABILITY = (2e-3, 0.98)


class Templates(nn.Module):
    """K hypotheses of the top site: per element a gate and a mean, and P(template | category).

    Args:
        shape: (C, H, W) of the top site.
        count: K, the number of templates of all categories together.
        categories: How many categories there are.
    """

    def __init__(self, shape: tuple[int, int, int], count: int, categories: int):
        super().__init__()
        self.register_buffer("logit", torch.zeros(count, *shape))
        self.register_buffer("mean", torch.zeros(count, *shape))
        self.register_buffer("spread", torch.ones(shape[0]))
        self.register_buffer("category", torch.zeros(count, dtype=torch.long))
        self.register_buffer("log_prior", torch.zeros(categories, count))

    def fit(
        self, activations: Tensor, category: Tensor, shares: list[int], seed: int = 0
    ) -> Tensor:
        """Cluster normalised activations of objects on nothing.

        Args:
            activations: (n, C, H, W).
            category: (n,), indices; rows of a category without a share are left out.
            shares: How many templates each category gets; they sum to K.
            seed: For the projection and the first centres.

        Returns:
            (n, 3), for each object the three nearest templates of its category.
        """
        nearest = torch.zeros(len(activations), 3, dtype=torch.long, device=activations.device)
        counts = torch.zeros(sum(shares), device=activations.device)
        squares = on_total = torch.zeros(len(self.spread), device=activations.device)
        often = (activations[category < len(shares)] > ON).float().mean(0)
        start = 0
        for index, count in enumerate(shares):
            rows = torch.where(category == index)[0]
            order = _cluster(activations[rows].clamp(max=CAP).flatten(1), count, seed)
            nearest[rows] = order + start
            for k in range(count):
                members = activations[rows[order[:, 0] == k]].float()
                self.category[start + k] = index
                counts[start + k] = len(members)
                if not len(members):
                    self.logit[start + k], self.mean[start + k] = -9.0, 1.0
                    continue
                on = (members > ON).float()
                mean = (members * on).sum(0) / on.sum(0).clamp(min=1)
                self.mean[start + k] = torch.where(on.sum(0) > 0, mean, 1.0)
                share = (on.sum(0) + 0.25 * often) / (len(members) + 0.5)
                self.logit[start + k] = torch.logit(share.clamp(*PROBABILITY))
                if len(members) > 1:
                    squares = squares + (((members - mean) * on) ** 2).sum((0, 2, 3))
                    on_total = on_total + on.sum((0, 2, 3))
            start += count
        self.spread.copy_((squares / on_total.clamp(min=1)).sqrt().clamp(*SPREAD))
        own = self.category[None] == torch.arange(len(shares), device=counts.device)[:, None]
        smoothed = torch.where(own, counts + 1.0, 0.0)  # a Dirichlet prior of one count each
        self.log_prior.copy_((smoothed / smoothed.sum(1, keepdim=True)).log())
        return nearest


def _cluster(rows: Tensor, count: int, seed: int, rounds: int = 10) -> Tensor:
    """k-means++ and Lloyd's rounds on random projections; (n, 3) nearest centres."""
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(rows.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    points = torch.cat([chunk.float() @ projection.to(rows.device) for chunk in rows.split(500)])
    chosen = torch.randint(len(points), (1,), generator=generator).to(points.device)
    distance = (points - points[chosen]).square().sum(1)
    for _ in range(count - 1):
        draw = torch.rand(1, generator=generator, dtype=torch.float64).to(points.device)
        total = distance.double().cumsum(0)
        new = torch.searchsorted(total, draw * total[-1]).clamp(max=len(points) - 1)
        chosen = torch.cat([chosen, new])
        distance = torch.minimum(distance, (points - points[new]).square().sum(1))
    centres = points[chosen]
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    order = torch.cdist(points, centres).topk(min(3, count), largest=False).indices
    return order[:, torch.arange(3).clamp(max=order.shape[1] - 1)]
