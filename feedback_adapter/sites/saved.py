"""A tensor that a finished call returned, as a replay will need it."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor


class SavedTensor:
    """A tensor that a finished call returned: its value, a copy of it, or a placeholder.

    It begins as a weak reference, which keeps nothing alive. `keep` makes it a strong one,
    since a replay will read the value; `copy` takes a copy, since the value is about to be
    overwritten. What is neither kept nor copied is read by nobody, and NaN stands for it.

    Args:
        tensor: What the call returned.
        strong: Whether to keep it from the start.

    Attributes:
        tensor: The value or its copy, or `None`.
        copied: Whether it is a copy, because the model overwrites the value in place. A
            replay then gets a copy of its own, each time.
    """

    __slots__ = ("_blank", "_ref", "_spec", "copied", "tensor")

    def __init__(self, tensor: Tensor, *, strong: bool) -> None:
        self._ref = weakref.ref(tensor)
        self._spec = (tensor.shape, tensor.dtype, tensor.device)
        self._blank: Tensor | None = None
        self.tensor: Tensor | None = tensor if strong else None
        self.copied = False

    def is_(self, tensor: Tensor) -> bool:
        """Whether this is about that very tensor."""
        return self._ref() is tensor

    def keep(self, tensor: Tensor) -> None:
        """Hold the tensor, since a replay will read it."""
        if self.tensor is None:
            self.tensor = tensor

    def copy(self) -> bool:
        """Copy the value, since the operation about to run overwrites it; whether it did."""
        tensor = self.tensor if self.tensor is not None else self._ref()
        if tensor is None or self.copied:
            return False
        self.tensor, self.copied = tensor.detach().clone(), True
        return True

    def forget(self) -> None:
        """Drop the value: no replay will read it."""
        self.tensor, self.copied = None, False

    def value(self) -> Tensor:
        """The value, or a NaN placeholder (0 in whole numbers) for what nobody reads."""
        if self.tensor is not None:
            if self.tensor.is_inference() and not torch.is_inference_mode_enabled():
                self.tensor = self.tensor.clone()  # autograd refuses what inference mode made
            return self.tensor
        if self._blank is None:
            shape, dtype, device = self._spec
            nan = float("nan") if dtype.is_floating_point or dtype.is_complex else 0
            self._blank = torch.full((), nan, dtype=dtype, device=device).expand(shape)
        return self._blank

    def give(self) -> Tensor:
        """What a replayed call returns: the value, or a copy of what will be overwritten."""
        return self.value().clone() if self.copied else self.value()
