"""How a net is trained, what net that is, and the loss that it is trained on."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fa_cnnf
from fa_cnnf import checkpoints


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a net is trained.

    Args:
        net: "fashion", or "wrn-DEPTH-WIDTH".
        site: What feedback reconstructs.
        inner: Further sites whose reconstructions count in the loss.
        steps: T in training; 0 makes the feedforward control.
        step_size: eta.
        head_norm: See `fa_cnnf.convert`.
        adversarial: Train on PGD images beside clean ones.
        eps: Largest change of a pixel, in [0, 1] units.
        attack_step: Of PGD, in [0, 1] units.
        attack_steps: Of PGD on the first pass, with a random start.
        clean_weight: Of the clean images' cross-entropy in adversarial training.
        mse_weight: Of the reconstructions.
        augment: Random crops (4 pixels of padding) and flips.
        epochs: Passes over the training images.
        batch: Images in a step.
        lr: Of SGD, falling as (1 - done)^power, step by step.
        power: Of the schedule.
        momentum, weight_decay: Of SGD; decay is on all parameters, once.
        clip: Largest norm of the gradient.
    """

    net: str = "fashion"
    site: str = "relu2"
    inner: tuple[str, ...] = ("pool3", "pool4")
    steps: int = 1
    step_size: float = 0.1
    head_norm: str = "channel"
    adversarial: bool = False
    eps: float = 0.1
    attack_step: float = 0.0355
    attack_steps: int = 7
    clean_weight: float = 0.1
    mse_weight: float = 0.1
    augment: bool = False
    epochs: int = 20
    batch: int = 256
    lr: float = 0.05
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 0.5

    def architecture(self) -> dict[str, Any]:
        """The options of `fa_cnnf.convert`."""
        names = ("site", "inner", "steps", "step_size", "head_norm")
        return {name: getattr(self, name) for name in names}


def build(settings: Settings) -> fa_cnnf.CNNF:
    """The net with fresh weights; torch's random state decides them."""
    return checkpoints.build(settings.net, settings.architecture())


def loss_of(
    model: fa_cnnf.CNNF, clean: Tensor, adv: Tensor | None, y: Tensor, s: Settings
) -> Tensor:
    """The published loss of one batch.

    1/(2(T+1)) sum_t [clean_weight CE(clean) + CE(adv)] + mse_weight/(4T) sum_t [MSE of the
    adversarial images' reconstructions against the clean features, summed over sites]. Without
    adversarial images: 1/(T+1) sum_t CE(clean), and the clean reconstructions.
    """
    n = len(clean)
    unroll = model.unroll(clean if adv is None else torch.cat([clean, adv]), s.steps)
    passes = s.steps + 1
    targets = y.repeat(passes)
    loss = F.cross_entropy(unroll.logits[:, :n].flatten(0, 1), targets)
    if adv is not None:
        of_adv = F.cross_entropy(unroll.logits[:, n:].flatten(0, 1), targets)
        loss = (s.clean_weight * loss + of_adv) / 2
    part = slice(None) if adv is None else slice(n, None)
    pairs = [(unroll.features[0], unroll.reconstructions)]
    pairs += [(unroll.inner_features[k], v) for k, v in unroll.inner_reconstructions.items()]
    for feature, reconstructions in pairs:
        for value in reconstructions:
            error = F.mse_loss(value[part], feature[:n])
            loss = loss + s.mse_weight / (4 * s.steps) * error
    return loss
