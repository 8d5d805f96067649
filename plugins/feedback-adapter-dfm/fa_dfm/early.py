"""The early stages of a network under a head of their own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fa_dfm.probe import trace
from feedback_adapter.errors import OptionsError, did_you_mean

__all__ = ["Early"]


class Early(nn.Module):
    """A network up to one of its stages, and a head on it.

    Args:
        model: Of our own, in evaluation mode. Modules that aren't needed are taken out of it.
        stage: Name of the module at which it ends.
        head: Makes logits of that module's output, (batch, K) or (batch, K, height, width).
            Maps are brought to the size of the images.
        images: (batch, channels, height, width), to see what is needed.

    Raises:
        OptionsError: There is no such stage, or it isn't run.
    """

    def __init__(self, model: nn.Module, stage: str, head: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.body = _Body(model, stage, images)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to logits."""
        out = self.head(self.body(images))
        if out.ndim == 4 and out.shape[2:] != images.shape[2:]:
            size = (images.shape[2], images.shape[3])
            out = F.interpolate(out, size=size, mode="bilinear", align_corners=False)
        return out


class _Body(nn.Module):
    """Runs a network as it is written, until its last stage says that it is done."""

    def __init__(self, model: nn.Module, stage: str, images: Tensor) -> None:
        super().__init__()
        seen = trace(model, images)
        if stage not in seen.maps:
            raise OptionsError(
                f"loop={stage!r} makes no feature map. {did_you_mean(stage, seen.maps)}"
            )
        model.set_submodule(stage, _Last(model.get_submodule(stage)))
        self.stages = model
        _drop_unused(self, images)

    def forward(self, images: Tensor) -> Tensor:
        try:
            self.stages(images)
        except _Done as done:
            return done.features
        raise AssertionError("the last stage of the loop didn't run")


class _Done(Exception):  # noqa: N818 - it is no error
    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


class _Last(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        raise _Done(self.inner(x))


@torch.no_grad()
def _drop_unused(body: nn.Module, images: Tensor) -> None:
    """Take out the modules that don't run, so that their weights aren't kept and trained."""
    used: set[nn.Module] = set()
    handles = [
        module.register_forward_pre_hook(lambda module, _args: used.add(module))
        for module in body.modules()
    ]
    try:
        body(images)
    finally:
        for handle in handles:
            handle.remove()
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if not used.intersection(child.modules()):
                delattr(parent, name)
