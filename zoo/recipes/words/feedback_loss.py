"""A loss that makes a classifier good at feedback: feedback-aware training.

Some labels of each training image, drawn anew in every step, are taken as known. A few
steps of gradient descent on their loss move the features before the classifier, as
residual feedback-prop does at inference; the loss is that of the other labels then.
What is trained is where the known labels' gradients lead: the classifier's weights come
to hold which labels go together. The labels' own prediction, without feedback, has its
own loss beside this one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeatureTap", "feedback_loss"]


class FeatureTap:
    """Keeps what a layer was last called with; for training code, not for a user's model."""

    def __init__(self, layer: nn.Module) -> None:
        self.features = torch.empty(0)
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.features = inputs[0]


def feedback_loss(
    features: Tensor, classifier: nn.Linear, targets: Tensor, *, steps: int, step_size: float
) -> Tensor:
    """Loss of the unknown labels after feedback from the known ones, in nats per label.

    Args:
        features: (batch, channels), the classifier's input.
        classifier: The last layer.
        targets: (batch, labels), in [0, 1].
        steps: Steps of gradient descent, unrolled.
        step_size: Their size, in the features' unit^2 per nat.
    """
    with torch.autocast(features.device.type, enabled=False):
        weight, bias = classifier.weight.float(), classifier.bias.float()
        share = torch.rand(len(targets), 1, device=targets.device)
        known = (torch.rand_like(targets) < share).float()
        moved = features.float()
        logits = F.linear(moved, weight, bias)
        for _ in range(steps):
            moved = moved - step_size * ((logits.sigmoid() - targets) * known) @ weight
            logits = F.linear(moved, weight, bias)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses * (1 - known)).sum() / (1 - known).sum().clamp(min=1)
