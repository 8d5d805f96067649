"""Predictions of training images by models that haven't seen them, without training a network.

A network that knows its training images by heart says nothing about how the errors of its logits go
together. Linear models on the features of another network do, which wasn't trained on these labels:
each is fitted to four fifths of the images, and predicts the rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

import feedback_adapter as fa
from fa_evaluate.data import LabelledImages

FOLDS = 5
WEIGHT_DECAY = 0.02
ROUNDS = 40


def features(adapter: fa.Adapter, images: LabelledImages) -> Tensor:
    """What a timm model's classifier gets, (images, channels)."""
    transform, model = adapter.transform, adapter.model.eval()
    assert transform is not None, "the zoo's checkpoints have a transform"
    parts: list[Tensor] = []
    with torch.no_grad():
        rows = torch.arange(len(images)).split(32)
        for own in track(rows, "features", console=Console(stderr=True)):
            batch = torch.stack([transform(images.open(row)) for row in own.tolist()])
            parts.append(model.forward_head(model.forward_features(batch), pre_logits=True))
    return torch.cat(parts)


def held_out(features: Tensor, targets: Tensor, seed: int = 0) -> Tensor:
    """Logits (images, labels) of each image by a linear model of the other folds.

    Args:
        features: (images, channels).
        targets: (images, labels), 0 or 1.
        seed: Of the folds.
    """
    x = (features - features.mean(0)) / (features.std(0) + 1e-2)
    y = targets.to(x)
    fold = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)) % FOLDS
    logits = torch.zeros_like(y)
    for number in track(range(FOLDS), "folds", console=Console(stderr=True)):
        own = fold == number
        weight, bias = _linear(x[~own], y[~own])
        logits[own] = x[own] @ weight + bias
    return logits


def _linear(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = y.mean(0).clamp(1e-3, 1 - 1e-3).logit().requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ROUNDS, history_size=6, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        likelihood = F.binary_cross_entropy_with_logits(x @ weight + bias, y, reduction="sum")
        total = likelihood / len(x) + WEIGHT_DECAY / 2 * weight.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return weight.detach(), bias.detach()
