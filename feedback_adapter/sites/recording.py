"""What one forward pass did: the tree of module calls, and the values that a replay needs.

The tree holds calls, not modules, since a module may be called many times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.sites.nested import map_tensors, named_tensors
from feedback_adapter.sites.saved import SavedTensor
from feedback_adapter.sites.site import Site
from feedback_adapter.sites.torch_patches import storage_of


class Call:
    """One call of one module in a recorded forward pass.

    Args:
        module: What was called.
        path: Its path in the model.
        index: How many calls of it came before.
        parent: The call that it happened in.

    Attributes:
        children: The calls that happened in it, in order.
        end: How many calls had finished before it did; -1 while it runs, or if it raised an
            exception.
        macs: Multiply-accumulates of the whole pass up to its end; see `Recording`.
        tensors: Selector, shape and type of each dense tensor that it returned.
        value: What it returned, with a `SavedTensor` in place of each tensor, while a
            replay may need it.
        read_inside: Outputs of its own calls that its own code read.
        overwritten: Outputs of its own calls that its own code modified in place.
        pivots: Selector and site of the pivots on what it returned.
        contains_pivot: Whether a pivot is on a call in it: then a replay runs its code again.
    """

    __slots__ = (
        "children", "contains_pivot", "end", "index", "macs", "module", "overwritten",
        "parent", "path", "pivots", "read_inside", "tensors", "value",
    )  # fmt: skip

    def __init__(self, module: nn.Module, path: str, index: int, parent: Call | None) -> None:
        self.module, self.path, self.index, self.parent = module, path, index, parent
        self.children: list[Call] = []
        self.end = -1
        self.macs = 0
        self.tensors: list[tuple[str, tuple[int, ...], torch.dtype]] = []
        self.value: Any = None
        self.read_inside: list[tuple[SavedTensor, Tensor]] = []
        self.overwritten: list[SavedTensor] = []
        self.pivots: list[tuple[str, Site]] = []
        self.contains_pivot = False

    def ancestors(self) -> Iterable[Call]:
        """The calls that this one happens in, innermost first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent

    def descendants(self) -> Iterable[Call]:
        """The calls that happened in this one, and in those."""
        for child in self.children:
            yield child
            yield from child.descendants()


@dataclasses.dataclass(frozen=True)
class Recording:
    """What one forward pass did, and the values that a replay of it needs. Replays only read it.

    Args:
        value: What the model returned.
        caller: Stands for who called the model. In it is the call of the model itself, or, where
            the model's class has a `__call__` of its own, whatever calls that makes.
        calls: All calls, in the order in which they finished.
        first: The first call with a pivot on its output; `None` where there is none.
        activations: What arrived at each pivot, in the order in which the model computes them.
        macs: Multiply-accumulates of the pass; counted only where there are no pivots, since they
            tell how deep the sites are that pivots can be at.
        copies_inputs: Whether the model modifies its arguments in place: then a replay, too,
            needs copies of them.
        keep_all: Whether every output was kept and copied.
    """

    value: Any
    caller: Call
    calls: list[Call]
    first: Call | None
    activations: dict[Site, SavedTensor]
    macs: int
    copies_inputs: bool
    keep_all: bool

    def saved(self) -> Iterable[SavedTensor]:
        """What replays read, each once."""
        found: dict[int, SavedTensor] = {}

        def note(_: str, saved: SavedTensor) -> SavedTensor:
            return found.setdefault(id(saved), saved)

        for call in self.calls:
            map_tensors(call.value, note, leaf=SavedTensor)
        found |= {id(saved): saved for saved in self.activations.values()}
        return found.values()

    @property
    def nbytes(self) -> int:
        """Bytes of what replays read and of what the model returned, the images not included."""
        tensors = [saved.tensor for saved in self.saved() if saved.tensor is not None]
        tensors += [tensor for _, tensor in named_tensors(self.value)]
        storages = {storage_of(tensor): tensor.untyped_storage() for tensor in tensors}
        return sum(storage.nbytes() for storage in storages.values())
