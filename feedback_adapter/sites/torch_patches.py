"""What we have to know about PyTorch's insides, and nothing else in the library has to.

PyTorch has shortcuts that don't make the calls that we watch, or that round otherwise with
gradients than without: compiled graphs, the fused path of `nn.MultiheadAttention`, attention
kernels, gradient checkpointing's second forward pass. They are turned off for the time that a
model is held (`feedback_adapter.sites.frozen`), and only in the threads that hold one; but
where that model is compiled, other threads do without `torch.compile` meanwhile.
`PRIVATE_NAMES` lists every private name of PyTorch that this package touches; a test looks each
of them up, so that an update of PyTorch that removes one fails there first, and by name.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch.nn import attention, functional
from torch.utils import _python_dispatch, checkpoint

PRIVATE_NAMES = (
    "torch._C._autograd._unsafe_set_version_counter",
    "torch._C._functorch.peek_interpreter_stack",
    "torch._dynamo.eval_frame.DynamoStance",
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch._dynamo.eval_frame._stance",
    "torch.Tensor._version",
    "torch._ops.HigherOrderOperator",
    "torch._ops.OpOverload._overloadpacket",
    "torch._ops.OpOverload._schema",
    "torch.UntypedStorage._cdata",
    "torch._nested_tensor_from_mask_left_aligned",
    "torch.nn.Module._call_impl",
    "torch.nn.Module._compiled_call_impl",
    "torch.nn.Module()._buffers",
    "torch.nn.Module()._modules",
    "torch.nn.Module()._parameters",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._python_dispatch._get_current_dispatch_mode_stack",
    "torch.utils._python_dispatch._is_in_non_infra_torch_dispatch_mode",
    "torch.utils._python_dispatch._is_in_torch_dispatch_mode",
    "torch.utils._python_dispatch._pop_mode",
    "torch.utils._python_dispatch.TorchDispatchMode.supports_higher_order_operators",
    "torch.utils.checkpoint.CheckpointFunction",
    "torch.utils.checkpoint._checkpoint_without_reentrant_generator",
    "torch.utils.flop_counter.flop_registry",
    "torch.compile(torch.nn.Identity())._orig_mod",
)
"""Every private or undocumented name of PyTorch that `feedback_adapter.sites` uses."""

FunctionT = TypeVar("FunctionT")

Change = tuple[Any, str, Any]
"""Owner, attribute, and the attribute's value for the time that a model is held."""

_thread = threading.local()  # watching: how many models this thread holds
_modes = _python_dispatch._get_current_dispatch_mode_stack  # pyright: ignore[reportPrivateUsage]
_MODE_FLAGS = ("_is_in_torch_dispatch_mode", "_is_in_non_infra_torch_dispatch_mode")


class ThreadState:
    """How PyTorch is set in this thread, so that an interrupt at a bad instant changes nothing.

    It strikes even between the lines of `torch.no_grad` and of a dispatch mode, which then don't
    put back what they have set.
    """

    def __init__(self) -> None:
        self.watching = getattr(_thread, "watching", 0)
        self.grad, self.depth = torch.is_grad_enabled(), len(_modes())
        self.flags = {name: getattr(_python_dispatch, name) for name in _MODE_FLAGS}

    def watch(self) -> None:
        """Let the functions below answer in PyTorch's place, in this thread."""
        _thread.watching = self.watching + 1

    def put_back(self) -> None:
        """Set all as it was."""
        _thread.watching = self.watching
        torch.set_grad_enabled(self.grad)
        if len(_modes()) > self.depth:
            while len(_modes()) > self.depth:
                _python_dispatch._pop_mode()  # pyright: ignore[reportPrivateUsage]
            for name, value in self.flags.items():
                setattr(_python_dispatch, name, value)


def _is_watching() -> bool:
    return bool(getattr(_thread, "watching", 0))


def shortcuts_off(modules: Iterable[nn.Module]) -> list[Change]:
    """What to set so that PyTorch takes no shortcut in a model of these modules."""
    if any(_is_compiled(module) for module in modules):
        return [*_SHORTCUTS, (eval_frame, "_stance", _EAGER)]
    return _SHORTCUTS


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DataParallel and torch.compile: the same parameters, watchable."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = cast("nn.Module", model._orig_mod)
        else:
            return model


def storage_of(tensor: Tensor) -> int:
    """What tells the memory behind one tensor from that behind another.

    Sparse tensors, and those inside `torch.func.vmap`, have no memory that can be named: they
    are told apart by themselves.
    """
    try:
        return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
    except (NotImplementedError, RuntimeError):
        return -id(tensor)


def rewriting() -> str | None:
    """What is making another function of the caller's code, so that autograd isn't free to use."""
    if cast("Any", torch.jit).is_tracing():
        return "torch.jit.trace"
    inside = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore
    return None if inside is None else f"torch.func.{inside.key().name.lower()}"


def uncompiled(function: FunctionT) -> FunctionT:
    """The same function, which a caller's `torch.compile` calls as it is."""
    return cast("FunctionT", cast("Any", torch.compiler).disable(function))


def weights_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """What changes as soon as a parameter is written to or moved, by the parameter's name."""
    return {
        name: (parameter.data_ptr(), parameter._version)
        for name, parameter in model.named_parameters()
    }


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
            if _is_watching():
                run, _preserve, *inputs = args
                return run(*inputs)
            return function.apply(*args, **kwargs)

    yield module, "CheckpointFunction", Function
    for name in vars(module):
        if name.startswith("_checkpoint_without_reentrant_generator"):
            original = getattr(module, name)

            def generator(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                if _is_watching():
                    return (None for _ in range(1))  # a generator: errors are thrown into it
                return _original(*args, **kwargs)

            yield module, name, generator


_attention = functional.scaled_dot_product_attention


def _one_attention(*args: Any, **kwargs: Any) -> Tensor:
    """Attention by one kernel, whether or not its mask requires gradients.

    On a CPU the fused kernel can't differentiate a mask, so that PyTorch falls back where a
    mask is computed from the activations, and rounds otherwise than it does without gradients.
    """
    if not _is_watching():
        return _attention(*args, **kwargs)
    query = args[0] if args else kwargs.get("query")
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    computed = (
        isinstance(query, Tensor)
        and isinstance(mask, Tensor)
        and mask.is_floating_point()
        and mask.shape[:1] == query.shape[:1]
    )
    if computed and cast("Tensor", query).device.type == "cpu":
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            return _attention(*args, **kwargs)
    return _attention(*args, **kwargs)


_fastpath = torch.backends.mha.get_fastpath_enabled


def _fastpath_elsewhere() -> bool:
    """Whether PyTorch may fuse a whole attention layer: not in threads that hold a model."""
    return not _is_watching() and _fastpath()


_encode = nn.TransformerEncoder.forward


def _encode_padded(
    self: nn.TransformerEncoder,
    src: Tensor,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,
) -> Tensor:
    """What the fused path of an encoder gives: zeros where tokens are padding.

    The unfused path lets padded tokens attend to the others, and gives what comes of it.
    """
    padding = src_key_padding_mask
    fused = _is_watching() and _fastpath() and getattr(self, "use_nested_tensor", False)
    if not fused or padding is None or mask is not None or is_causal or src.dim() != 3:
        return _encode(self, src, mask, padding, is_causal)
    padded = padding if padding.dtype == torch.bool else padding != 0
    aligned = torch._nested_tensor_from_mask_left_aligned(src, ~padded)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    if torch.is_autocast_enabled() or (getattr(self, "mask_check", True) and not aligned):
        return _encode(self, src, mask, padding, is_causal)
    for layer in self.layers:
        src = layer(src, src_key_padding_mask=padding)
    src = src.masked_fill(padded.unsqueeze(-1), 0)
    return src if self.norm is None else self.norm(src)


_SHORTCUTS: list[Change] = [
    (torch.backends.mha, "get_fastpath_enabled", _fastpath_elsewhere),
    (nn.TransformerEncoder, "forward", _encode_padded),
    (functional, "scaled_dot_product_attention", _one_attention),
    *_uncheckpointed(cast("Any", checkpoint)),
]
