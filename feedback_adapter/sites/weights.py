"""Giving a module back the weights that it had, where forward passes write to them.

Most never do, and copying all of a model's weights for each refinement would take longer than
many a refinement. So a module's weights are copied until it has run once and left them alone.
"""

from __future__ import annotations

import weakref
from typing import Any, cast

import torch
from torch import Tensor, nn

from feedback_adapter.sites.nested import is_dense

_set_versions = cast("Any", torch._C)._autograd._unsafe_set_version_counter  # pyright: ignore[reportPrivateUsage]
_quiet: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()
"""Modules that have run here and whose weights nothing wrote to, by id."""


class Weights:
    """A module's own parameters, without those of its parts.

    Args:
        module: The module.
    """

    __slots__ = ("_copies", "_module")

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._copies: list[tuple[Tensor, Tensor, int, Tensor]] = []
        if _quiet.get(id(module)) is not module:
            self._copies = [
                (p, p.data, p._version, p.detach().clone())
                for p in module._parameters.values()  # pyright: ignore[reportPrivateUsage]
                if type(p) is nn.Parameter and is_dense(p)
            ]

    def put_back(self, *, ran: bool) -> bool:
        """Give the parameters their values and their memory back.

        Args:
            ran: Whether a forward pass of the model was finished meanwhile.

        Returns:
            Whether they were far from what they are again, and not by `max_norm`, which is the
            same in each pass.
        """
        renorms = getattr(self._module, "max_norm", None) is not None  # as nn.Embedding does
        written, far = renorms, False  # and for other images maybe other rows
        for weight, here, version, value in self._copies:
            now = weight.detach()
            if not same_bits(now, value):
                same_form = now.shape == value.shape and now.dtype == value.dtype
                near = same_form and torch.allclose(now, value, rtol=1e-3, atol=1e-6)
                written, far = True, far or not near
                here.copy_(value)
            if (weight.data_ptr(), weight._version) != (here.data_ptr(), version):
                written, weight.data = True, here
                _set_versions((weight,), (version,))  # the user's own graphs saw these bits
        if ran and not written:
            _quiet[id(self._module)] = self._module
        return far and not renorms


def same_bits(tensor: Tensor, value: Tensor) -> bool:
    """Whether two tensors have the same shape and bits, NaN included; sparse ones count as such."""
    if not is_dense(tensor):
        return True
    if (tensor.shape, tensor.dtype, tensor.device) != (value.shape, value.dtype, value.device):
        return False
    return torch.equal(tensor, value) or bool(
        ((tensor == value) | ((tensor != tensor) & (value != value))).all()
    )
