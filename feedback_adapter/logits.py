"""Whether a model's outputs are logits, as they must be, and not probabilities."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.errors import ModelError
from feedback_adapter.outputs import Outputs
from feedback_adapter.sites import Inputs, frozen

_DRAWS = 16
_NOISE = (1.0, 0.3, 0.1)
"""How much weights are changed, as shares of their size: large changes may lead to NaN."""
_SCALES = (1.0, -3.0, 10.0)
"""What images are multiplied with: a softmax stays in [0, 1], whatever it is shown."""


class LogitCheck:
    """Looks at a model's outputs once.

    Outputs that lie in [0, 1] may be logits by chance. They are probabilities if they stay there
    with other images and other weights, which a copy of the model is given.
    """

    def __init__(self) -> None:
        self.done = False

    def __call__(
        self, model: nn.Module, inputs: Inputs, outputs: Outputs, read: Callable[[Any], Outputs]
    ) -> None:
        """Refuse a model that returned probabilities, the first time that this is called."""
        if self.done or not inputs.batch:
            return
        bounded = {name for name, value in outputs.items() if _bounded(outputs, name, value)}
        if bounded:
            bounded &= _always_bounded(model, inputs, read, bounded)
        for name in sorted(bounded):
            sums = outputs[name].sum(1)
            softmax = bool(((sums - 1).abs() < 1e-3).all())
            what, inverse = ("softmax", "log()") if softmax else ("sigmoid", "logit()")
            more = " and its rows sum to 1" if softmax else ""
            raise ModelError(
                f"Output {name!r} holds probabilities, not logits: it lies in [0, 1]{more} "
                f"whatever the images and weights, as after a {what}. Leave that last step out of "
                f"the model, or wrap a module that undoes it: forward returns "
                f"model(images).clamp(1e-6, 1 - 1e-6).{inverse}."
            )
        self.done = True


def _bounded(outputs: Outputs, name: str, value: Tensor) -> bool:
    if outputs.specs[name].kind == "tokens" or not value.numel():
        return False
    low, high = torch.aminmax(value.detach())
    return bool((low >= 0) & (high <= 1))


def _always_bounded(
    model: nn.Module, inputs: Inputs, read: Callable[[Any], Outputs], names: set[str]
) -> set[str]:
    """Those of some outputs that stay in [0, 1] with other weights and other images."""
    images = inputs.images
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor, share: float) -> Tensor:
        drawn = torch.randn(like.shape, generator=generator, device="cpu").to(like)
        return drawn * (share * (like.detach().abs().mean() + 0.1))

    try:
        with torch.no_grad():  # a copy of a TorchScript's parameters isn't free to change else
            other = copy.deepcopy(model, _computed(model))
    except Exception:  # not every model can be copied: then only its images are changed
        other = None
    worked = False
    for draw in range(_DRAWS):
        share, scale = _NOISE[draw % len(_NOISE)], _SCALES[draw % len(_SCALES)]
        changed = inputs
        if images.is_floating_point():
            changed = inputs.replace(images * scale + noise(images, 1.0))
        if other is not None:
            own = dict(model.named_parameters())
            with torch.no_grad():
                for name, tensor in other.named_parameters():
                    if tensor.is_floating_point():
                        tensor.copy_(own[name] + noise(own[name], share))
        # A copy may fail where the model doesn't, as when a hook of it writes to the original.
        outputs = _outputs(other, changed, read) or _outputs(model, changed, read)
        if outputs is None:  # such weights or images may be impossible
            continue
        worked = True
        seen = {name: outputs[name][outputs[name].isfinite()] for name in names}
        names = {n for n, v in seen.items() if not v.numel() or _bounded(outputs, n, v)}
        if not names:
            break
    return names if worked else set()


def _computed(model: nn.Module) -> dict[int, Any]:
    """Copies of attributes with a gradient, such as a pruned weight: `deepcopy` refuses them."""
    held = (value for module in model.modules() for value in vars(module).values())
    tensors = [value for value in held if isinstance(value, Tensor) and not value.is_leaf]
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


def _outputs(
    model: nn.Module | None, inputs: Inputs, read: Callable[[Any], Outputs]
) -> Outputs | None:
    if model is None:
        return None
    try:
        with torch.no_grad(), frozen(model, watch=False):
            return read(inputs.run(model))
    except Exception:
        return None
