"""What a model is called with: images, and whatever else it takes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.errors import (
    FeedbackAdapterError,
    InputError,
    ModelError,
    SiteError,
    did_you_mean,
)
from feedback_adapter.sites.frozen import ran
from feedback_adapter.sites.nested import map_tensors, named_tensors
from feedback_adapter.sites.torch_patches import rewriting

__all__ = ["Inputs", "named_errors"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The positional and keyword arguments of one batch.

    The first tensor among them is the images; its first dimension is the batch. Other tensors
    whose first dimension is that long are per image, too, unless they are `shared`.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        shared: Names of keyword arguments that all images share, such as class weights: their
            tensors are passed on whole, whatever their shape.

    Raises:
        InputError: `shared` names what isn't a keyword argument.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    shared: Iterable[str] = frozenset()

    def __post_init__(self) -> None:
        shared = {self.shared} if isinstance(self.shared, str) else frozenset(self.shared)
        object.__setattr__(self, "shared", shared)
        for name in shared - self.kwargs.keys():
            raise InputError(
                f"shared={name!r} isn't a keyword argument. {did_you_mean(name, self.kwargs)}"
            )

    @classmethod
    def of(cls, images: Any) -> Inputs:
        """Read what a user passed: a tensor, a tuple of arguments, or a dict of keywords.

        Raises:
            InputError: No tensor in it, no batch dimension, NaN or inf in an image, or a tensor
                that isn't an ordinary one.
        """
        if isinstance(images, cls):
            inputs = images
        elif isinstance(images, Mapping):
            inputs = cls((), {str(k): v for k, v in images.items()})
        elif isinstance(images, (tuple, list)):
            inputs = cls(tuple(images))
        else:
            inputs = cls((images,))
        if not any(True for _ in named_tensors((inputs.args, inputs.kwargs))):
            raise InputError(
                f"images is a {type(images).__name__}: pass a tensor (batch, channels, height, "
                "width), a tuple of the model's arguments or a dict of its keyword arguments. "
                "adapter.transform.open(...) makes one of photos."
            )
        if inputs.images.ndim == 0:
            raise InputError(
                "images has no batch dimension: pass (batch, channels, height, width)."
            )
        _check_ordinary(inputs.images)
        if inputs.images.is_inference():  # made under inference_mode: autograd refuses it
            inputs = inputs.copy()
        if inputs.images.is_floating_point() and not inputs.images.is_meta:
            finite = inputs.images.isfinite()
            finite = finite.flatten(1).all(1) if finite.ndim > 1 else finite
            try:
                fine = bool(finite.all())
            except RuntimeError as error:
                raise InputError(
                    "The images have no values here, as inside FakeTensorMode or make_fx: "
                    "call this with ordinary tensors, outside of it."
                ) from error
            if not fine:
                bad = (~finite).nonzero().flatten().tolist()
                raise InputError(f"NaN or inf in image {bad[0]} (of {len(bad)} such images).")
        return inputs

    @property
    def images(self) -> Tensor:
        """The first tensor, (batch, ...)."""
        return next(tensor for _, tensor in named_tensors((self.args, self.kwargs)))

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.images.shape[0]

    def run(self, model: nn.Module) -> Any:
        """What the model returns. It gets copies, since it may modify its arguments in place."""
        copies = self.copy()
        with named_errors(model, self):
            value = model(*copies.args, **copies.kwargs)
        ran(model)
        return value

    def copy(self) -> Inputs:
        """The same values in tensors of their own."""
        return self._map(lambda _, tensor: tensor.clone())

    def replace(self, images: Tensor) -> Inputs:
        """The same arguments with other images."""
        old = self.images
        return self._map(lambda _, tensor: images if tensor is old else tensor)

    def take(self, rows: Tensor) -> Inputs:
        """The arguments of some of the images, by index (k,)."""
        batch = self.batch

        def rows_of(name: str, tensor: Tensor) -> Tensor:
            whole = name.split(".")[0] in self.shared
            return tensor if whole or not tensor.ndim or len(tensor) != batch else tensor[rows]

        return self._map(rows_of)

    def to(self, device: torch.device) -> Inputs:
        """The arguments on another device."""
        return self._map(lambda _, tensor: tensor.to(device))

    def _map(self, function: Callable[[str, Tensor], Tensor]) -> Inputs:
        args = map_tensors(self.args, lambda name, tensor: function(f"#{name}", tensor))
        return Inputs(args, map_tensors(self.kwargs, function), self.shared)


@contextlib.contextmanager
def named_errors(model: nn.Module, inputs: Inputs, follows: str | None = None) -> Generator[None]:
    """Say what was given to a model that raises an error of its own.

    Args:
        model: What runs.
        inputs: What it was given.
        follows: The pivot's name, where only what follows it runs again.

    Raises:
        InputError: The model raised Python's or PyTorch's error. Memory that runs out stays the
            error that it is, and so do kinds of errors that are defined elsewhere.
        ModelError: Another thread's torch.fx took the model's calls.
        SiteError: It raised only now that it runs again from a pivot on.
    """
    try:
        yield
    except (FeedbackAdapterError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("builtins", "torch"):
            raise  # the user's own kind of error, which the user's code may wait for
        if isinstance(error, NameError) and "not installed as a submodule" in str(error):
            raise ModelError(
                "Another thread is tracing with torch.fx, which takes the module calls of all "
                "threads meanwhile. Wait until it is done, and call again."
            ) from error
        said = f"{type(error).__name__} ({str(error).strip()[:300]})"
        if follows is not None:
            raise SiteError(
                f"Running what follows {follows!r} again, with gradients, raised {said}, which the "
                "forward pass didn't. Choose a later pivot."
            ) from error
        what = f"images {tuple(inputs.images.shape)} of {inputs.images.dtype}"
        hint = "Check that model.eval()(images) works."
        if len(inputs.args) + len(inputs.kwargs) > 1:
            what += f" ({len(inputs.args)} arguments, keywords {list(inputs.kwargs)})"
            hint = (
                "A tuple or list is the model's arguments, a dict its keyword arguments. A model "
                "that takes the tuple, list or dict itself as its one argument gets (images,)."
            )
        raise InputError(f"{type(model).__name__} raised {said} on {what}. {hint}") from error


def _check_ordinary(images: Tensor) -> None:
    """Refuse images that aren't numbers in a row, which autograd needs."""
    inside = rewriting()
    if inside is not None:
        raise InputError(
            f"This can't be done inside {inside}, since it runs the model and autograd in ways "
            "that depend on values: call it outside, with ordinary tensors."
        )
    if images.is_nested or images.layout != torch.strided:
        what = "nested" if images.is_nested else str(images.layout).removeprefix("torch.")
        raise InputError(
            f"The images are {what}: pass an ordinary tensor, such as images.to_dense() or one "
            "padded to one size. Other arguments of the model may be of any kind."
        )
    if images.is_quantized or (images.is_floating_point() and images.dtype.itemsize == 1):
        raise InputError(
            f"The images are {images.dtype}, which nothing can be refined with: pass whole "
            "numbers, or floating-point numbers of 16 bits or more."
        )
