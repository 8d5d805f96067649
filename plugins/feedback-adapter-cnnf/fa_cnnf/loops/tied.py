"""Tied mode: CNN-F's loop for any model, its feedback taken from autograd.

With the norms left out, the first feedback pass of CNN-F is the vector-Jacobian product of
the logits with respect to the feature, with the logits themselves as cotangent: transposed
weights, the forward pass's ReLU switches and pooling places. So `torch.autograd.grad` gives
the feedback of any model. The instance norms become a normalisation of the gradient by its
root mean square below every convolution.

What this form lacks beside `convert`: AdaReLU and AdaPool don't look at feedback. And a model
whose weights weren't trained for the loop gets worse with it; use decoders for those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fa_cnnf.layers.norms import EPSILON
from fa_cnnf.loops.base import Unroll
from feedback_adapter.errors import ModelError, OptionsError
from feedback_adapter.sites import INPUT, Inputs, Site, Tail, frozen

__all__ = ["TiedLoop"]

CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d})


class TiedLoop:
    """The loop for a model as it is. Nothing is trained, and the model isn't changed.

    Args:
        model: Returns logits (batch, classes), or something that `read` takes them from.
        site: The activation that feedback reconstructs: one of `Adapter.sites`.
        steps: T, at least 0.
        step_size: eta, in [0, 1].
        norms: Normalise feedback below every convolution: per sample and channel over the
            other dimensions, as CNN-F's instance norm does.
        read: Takes logits (batch, classes) out of what the model returns.

    Raises:
        OptionsError: An option is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        site: str | Site = INPUT,
        steps: int = 1,
        step_size: float = 0.1,
        *,
        norms: bool = True,
        read: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if steps < 0:
            raise OptionsError(f"steps={steps} is out of range: it must be at least 0.")
        if not 0 <= step_size <= 1:
            raise OptionsError(f"step_size={step_size} is out of range: it must be in [0, 1].")
        self.model, self.site, self.steps, self.step_size = model, site, steps, step_size
        self.norms, self.read = norms, read or _tensor

    def unroll(self, x: Any, clamp: Callable[[Tensor], Tensor] | None = None) -> Unroll:
        """All iterates of images; see `CNNF.unroll`. They carry no autograd graph.

        Args:
            x: Images (batch, ...), or whatever else the model is called with.
            clamp: What feedback generates from, given raw logits; `None` for themselves.

        Raises:
            ModelError: The model doesn't return a tensor of logits.
            SiteError: There is no such site.
        """
        with frozen(self.model), torch.enable_grad():
            tail = Tail.record(self.model, Inputs.of(x), [self.site])
            h = tail.activations[0].detach()
            features, reconstructions, logits = [h], [], []
            for step in range(self.steps + 1):
                leaf = h.clone().requires_grad_()
                with _Norms(leaf) if self.norms else _NoMode():
                    o = self.read(tail.run([lambda _, leaf=leaf: leaf]))
                logits.append(o.detach())
                if step == self.steps:
                    break
                top = o.detach() if clamp is None else clamp(o.detach())
                (g,) = torch.autograd.grad(o, leaf, top)
                reconstructions.append(g)
                h = h + self.step_size * (g - h)
                features.append(h)
        return Unroll(torch.stack(logits), tuple(features), tuple(reconstructions), {}, {})


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 2:
        got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value)
        raise ModelError(
            f"The model returned {got}, not logits (batch, classes). Pass read=... to say how "
            "to get them."
        )
    return value


class _Normalise(torch.autograd.Function):
    """Identity forward; backwards the gradient over its root mean square."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        dims = tuple(range(2, g.ndim))
        return g / torch.sqrt((g * g).mean(dims, keepdim=True) + EPSILON)


class _Norms(TorchFunctionMode):
    """Normalises the gradient at the input of every convolution but those on the site itself.

    A mode sees functions, whatever modules call them, and leaves no hook on the model.
    """

    def __init__(self, site: Tensor) -> None:
        super().__init__()
        self._site = [site]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        at_site = bool(args) and any(args[0] is tensor for tensor in self._site)
        if func in CONVOLUTIONS and args and not at_site and args[0].ndim > 3:
            args = (_Normalise.apply(args[0]), *args[1:])
        value = func(*args, **(kwargs or {}))
        if at_site and func is Tensor.clone:
            self._site.append(value)
        return value


class _NoMode:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
