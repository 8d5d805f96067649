"""Holding a model still while it is refined, and giving it back as it was.

For the time of a refinement only: evaluation mode, frozen parameters, and PyTorch's own
shortcuts off that don't make the calls that we watch, or that round otherwise with gradients
than without (compiled graphs, the fused path of `nn.MultiheadAttention`, attention kernels,
gradient checkpointing's second forward pass). Whatever is set is
counted, so that several threads can hold the same model, or models that share layers: the
last one restores.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch.nn import attention, functional
from torch.utils import checkpoint

from feedback_adapter.errors import ModelError
from feedback_adapter.sites.calls import installed

__all__ = ["borrowed", "unwrapped"]

Change = tuple[Any, str, Any]  # owner, attribute, value for the time

_lock = threading.Lock()
_local = threading.local()  # borrowing: how many models this thread holds
_held: dict[tuple[int, str], tuple[int, Any, Any]] = {}  # (id, attribute): (holders, owner, value)


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Generator[None]:
    """Hold the model in evaluation mode with frozen parameters, outside inference mode.

    Raises:
        ModelError: The weights were made under `torch.inference_mode`, or are on the
            meta device.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ModelError(
                f"{name!r} was made under torch.inference_mode, and autograd refuses such tensors. "
                "Build or load the model outside of it, or pass copy.deepcopy(model)."
            )
        if tensor.is_meta:
            raise ModelError(
                f"{name!r} is on the meta device and has no values. "
                "Load the weights first: model.to_empty(device=...), then load_state_dict."
            )
    changes: list[Change] = [(module, "training", False) for module in model.modules()]
    changes += [(parameter, "requires_grad", False) for parameter in model.parameters()]
    changes += _SHORTCUTS
    if any(_is_compiled(module) for module in model.modules()):
        changes += [(eval_frame, "_stance", _EAGER)]
    _take(changes)
    _local.borrowing = getattr(_local, "borrowing", 0) + 1
    try:
        with torch.inference_mode(False), installed():
            yield
    finally:
        _local.borrowing -= 1
        _give_back(changes)


def _take(changes: list[Change]) -> None:
    with _lock:
        for owner, name, value in changes:
            holders, _, before = _held.get((id(owner), name), (0, owner, getattr(owner, name)))
            _held[id(owner), name] = (holders + 1, owner, before)
            if getattr(owner, name) is not value:
                setattr(owner, name, value)


def _give_back(changes: list[Change]) -> None:
    with _lock:
        for owner, name, _ in changes:
            holders, _, before = _held[id(owner), name]
            if holders > 1:
                _held[id(owner), name] = (holders - 1, owner, before)
                continue
            del _held[id(owner), name]
            if getattr(owner, name) is not before:
                setattr(owner, name, before)


# ---- shortcuts ----


def _is_compiled(module: nn.Module) -> bool:
    compiled = module._compiled_call_impl is not None  # pyright: ignore[reportPrivateUsage]
    return compiled or isinstance(module, eval_frame.OptimizedModule)


_EAGER = eval_frame.DynamoStance("force_eager")
"""What `torch.compiler.set_stance("force_eager")` sets."""


def _uncheckpointed(module: Any) -> Generator[Change]:
    """Let `torch.utils.checkpoint` just run its function, in threads that hold a model.

    A second forward pass would make the calls again, unwatched, and the reentrant form
    can't be differentiated with respect to an activation.
    """
    function: Any = module.CheckpointFunction

    class Function(function):
        @classmethod
        def apply(cls, *args: Any, **kwargs: Any) -> Any:
            if getattr(_local, "borrowing", 0):
                run, _preserve, *inputs = args
                return run(*inputs)
            return function.apply(*args, **kwargs)

    yield module, "CheckpointFunction", Function
    for name in vars(module):
        if name.startswith("_checkpoint_without_reentrant_generator"):
            original = getattr(module, name)

            def generator(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                if getattr(_local, "borrowing", 0):
                    return iter((None,))
                return _original(*args, **kwargs)

            yield module, name, generator


_attention = functional.scaled_dot_product_attention


def _one_attention(*args: Any, **kwargs: Any) -> Tensor:
    """Attention by one kernel, whether or not its mask requires gradients.

    On a CPU the fused kernel can't differentiate a mask, so that PyTorch falls back where a
    mask is computed from the activations, and rounds otherwise than it does without gradients.
    """
    query, mask = args[0], args[3] if len(args) > 3 else kwargs.get("attn_mask")
    computed = mask is not None and mask.is_floating_point() and mask.shape[0] == query.shape[0]
    if computed and query.device.type == "cpu" and getattr(_local, "borrowing", 0):
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            return _attention(*args, **kwargs)
    return _attention(*args, **kwargs)


_SHORTCUTS: list[Change] = [
    (torch.backends.mha, "_is_fastpath_enabled", False),
    (functional, "scaled_dot_product_attention", _one_attention),
    *_uncheckpointed(cast("Any", checkpoint)),
]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DataParallel and torch.compile: the same parameters, watchable."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = cast("nn.Module", model._orig_mod)
        else:
            return model
