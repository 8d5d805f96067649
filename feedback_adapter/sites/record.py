"""One recorded forward pass: the tree of module calls, and what a replay needs of it.

The tree holds calls, not modules, since a module may be called many times. While the
pass runs, a dispatch mode watches which finished outputs are touched by code that a
replay runs again (the forward of a module that contains the pivot, or anything after
the pivot): only these are kept, and only those that are modified in place are copied.
Everything else is held weakly and dies when the model drops it, so that recording
takes no more memory than the plain forward.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from feedback_adapter.sites.calls import intercept, plain_call
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.structure import map_tensors, named_tensors, replace_tensor

__all__ = ["Call", "InputIsWrittenError", "Kept", "Recording", "record"]

Key = tuple[str, int, str]


class InputIsWrittenError(BaseException):
    """The model is about to modify the user's images: not for models to catch."""


class Kept:
    """A tensor that a finished call returned, for replays: value, copy or placeholder."""

    __slots__ = ("_ref", "_spec", "modified", "tensor")

    def __init__(self, tensor: Tensor, *, strong: bool) -> None:
        self._ref = weakref.ref(tensor)
        self._spec = (tensor.shape, tensor.dtype, tensor.device)
        self.tensor: Tensor | None = tensor if strong else None
        self.modified = False

    def is_(self, tensor: Tensor) -> bool:
        """Whether this is about that very tensor."""
        return self._ref() is tensor

    def keep(self, tensor: Tensor) -> None:
        """Hold the tensor, since a replay will use it."""
        if self.tensor is None:
            self.tensor = tensor

    def save(self) -> bool:
        """Copy the value, since the operation about to run modifies it in place."""
        tensor = self.tensor if self.tensor is not None else self._ref()
        if tensor is None or self.modified:
            return False
        self.tensor, self.modified = tensor.detach().clone(), True
        return True

    def forget(self) -> None:
        """Drop the copy: a replay won't run the call that modified the value."""
        self.tensor, self.modified = None, False

    def value(self) -> Tensor:
        """The value, or a NaN placeholder for what nobody uses."""
        if self.tensor is None:
            shape, dtype, device = self._spec
            nan = float("nan") if dtype.is_floating_point or dtype.is_complex else 0
            self.tensor = torch.full((), nan, dtype=dtype, device=device).expand(shape)
        return self.tensor

    def give(self) -> Tensor:
        """What a replayed call returns: the value, or a copy of what will be modified."""
        return self.value().clone() if self.modified else self.value()


class Call:
    """One call of one module in a recorded forward pass."""

    __slots__ = (
        "children", "end", "held", "index", "macs", "module", "parent", "path",
        "pivots", "saved", "tensors", "value", "visited",
    )  # fmt: skip

    def __init__(self, module: nn.Module, path: str, index: int, parent: Call | None) -> None:
        self.module, self.path, self.index, self.parent = module, path, index, parent
        self.children: list[Call] = []
        self.end = -1  # when it finished, in finished calls; -1 while it runs
        self.macs = 0  # multiply-accumulates of the whole pass when it finished
        self.tensors: list[tuple[str, tuple[int, ...], torch.dtype]] = []
        self.value: Any = None  # its output, a `Kept` for each tensor, while a replay may need it
        self.held: list[tuple[Kept, Tensor]] = []  # outputs that its own code touched
        self.saved: list[Kept] = []  # outputs that its own code modified in place
        self.pivots: list[tuple[str, Key]] = []  # (selector, key) of the pivots on its output
        self.visited = False  # contains a pivot: runs again in a replay

    def ancestors(self) -> Iterable[Call]:
        """The calls that this one happens in, innermost first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent


def record(model: nn.Module, inputs: Inputs, **options: Any) -> Recording:
    """Record a forward pass; one that modifies its inputs in place gets copies of them.

    Args:
        model: The model to run.
        inputs: Its arguments, which stay what they are.
        **options: See `Recording`.
    """
    try:
        return Recording(model, inputs, **options)
    except InputIsWrittenError:
        return Recording(model, inputs, copy=True, **options)


class Recording(TorchDispatchMode):
    """A forward pass with its tree of calls and the values that a replay needs.

    Args:
        model: The model to run.
        inputs: Its arguments.
        copy: Run it on a copy of them: it modifies them in place, and so will replays.
        pivots: Keys of the sites to re-run from; none to see the tree alone.
        given: Activations to put in place of what the model computes, by site key.
        careful: Keep and copy every output, in case watching misses something.

    Raises:
        InputIsWrittenError: The model was about to modify an input, and `copy` is off.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        *,
        copy: bool = False,
        pivots: Iterable[Key] = (),
        given: Mapping[Key, Tensor] | None = None,
        careful: bool = False,
    ) -> None:
        super().__init__()
        self.careful = careful
        self.macs = 0
        self.calls: list[Call] = []  # in the order in which they finished
        self.first: Call | None = None  # the first call with a pivot on its output
        self.activations: dict[Key, Kept] = {}
        self._pivots = set(pivots)
        self._given = dict(given or {})
        self._paths = {id(m): _clean(name) for name, m in model.named_modules()}
        named = {key[0] for key in self._pivots}
        self._above = _above(model, {id for id, path in self._paths.items() if path in named})
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._root = Call(model, "", -1, None)  # stands for the caller
        self._stack = [self._root]
        self._by_id: dict[int, Kept] = {}
        self._by_storage: defaultdict[int, list[Kept]] = defaultdict(list)
        self.copies_inputs = copy
        tensors = [] if copy else [t for _, t in named_tensors((inputs.args, inputs.kwargs))]
        self._guarded = {_storage(tensor) for tensor in tensors}
        with torch.no_grad(), intercept(self._call):
            inputs = inputs.copy() if copy else inputs
            with self:
                self.value = model(*inputs.args, **inputs.kwargs)
        for _, tensor in named_tensors(self.value):
            self._touch(tensor, returned=True)
        self._by_id.clear()
        self._by_storage.clear()

    @property
    def root(self) -> Call:
        """The call of the model itself."""
        return self._root.children[0]

    # ---- what happens at each module call ----

    def _call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        index = self._counts[id(module)]
        self._counts[id(module)] += 1
        path = self._paths.get(id(module), f"<{type(module).__name__}>")
        call = Call(module, path, index, self._stack[-1])
        self._stack[-1].children.append(call)
        self._stack.append(call)
        value = plain_call(module, args, kwargs, self._call)
        self._stack.pop()
        value = self._give(call, value)
        self._finish(call, value)
        return value

    def _give(self, call: Call, value: Any) -> Any:
        for key, tensor in self._given.items():
            if key[:2] == (call.path, call.index):
                value = replace_tensor(value, key[2], tensor.clone())
        return value

    def _finish(self, call: Call, value: Any) -> None:
        call.end, call.macs = len(self.calls), self.macs
        self.calls.append(call)
        call.tensors = [(name, tuple(t.shape), t.dtype) for name, t in named_tensors(value)]
        for key in self._pivots:
            if key[:2] == (call.path, call.index):
                self._pivot(call, key, value)
        if self.first is None or call is self.first:
            call.value = map_tensors(value, lambda _, tensor: self._watch(tensor))
        if not call.visited:
            for child in call.children:  # inside a call that will be replayed as a whole
                child.value = None
            for kept in call.saved:
                kept.forget()
            call.held.clear()
            call.saved.clear()

    def _pivot(self, call: Call, key: Key, value: Any) -> None:
        tensors = dict(named_tensors(value))
        if key[2] not in tensors:
            return
        if self.first is None:
            self.first = call
            for frame in call.ancestors():
                for kept, tensor in frame.held:
                    kept.keep(tensor)
        for frame in call.ancestors():
            frame.visited = True
        call.pivots.append((key[2], key))
        kept = self._watch(tensors[key[2]])
        kept.keep(tensors[key[2]])
        self.activations[key] = kept

    # ---- what happens at each tensor operation ----

    def _watch(self, tensor: Tensor) -> Any:
        kept = self._by_id.get(id(tensor))
        if kept is None or kept.modified or not kept.is_(tensor):
            kept = Kept(tensor, strong=self.careful)
            if self.careful:
                kept.save()
            self._by_id[id(tensor)] = kept
            self._by_storage[_storage(tensor)].append(kept)
        return kept

    def _touch(self, tensor: Tensor, *, returned: bool = False) -> None:
        kept = self._by_id.get(id(tensor))
        if kept is None or not kept.is_(tensor):
            return
        if self.first is not None or returned:
            kept.keep(tensor)
        elif id(self._stack[-1].module) in self._above:
            self._stack[-1].held.append((kept, tensor))

    def _modify(self, tensor: Tensor) -> None:
        frame = self._stack[-1]
        if self.first is None and not frame.module._modules:  # pyright: ignore[reportPrivateUsage]
            return  # inside a call that is replayed: its output is the modified tensor
        for kept in self._by_storage.get(_storage(tensor), ()):
            if kept.save() and self.first is None:
                frame.saved.append(kept)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        if self._by_id or schema.is_mutable:
            for position, value in enumerate((*args, *kwargs.values())):
                for tensor in _flat(value):
                    self._touch(tensor)
                    if schema.is_mutable and _writes(schema, position, len(args), kwargs):
                        if _storage(tensor) in self._guarded:
                            raise InputIsWrittenError
                        self._modify(tensor)
        result = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.macs += count(*args, **kwargs, out_val=result) // 2
        return result


def _above(model: nn.Module, modules: set[int]) -> set[int]:
    """Ids of what has one of the modules inside: what may call it (else `careful` is there)."""
    inside: dict[int, bool] = {}

    def visit(module: nn.Module) -> bool:
        if id(module) not in inside:
            found = [visit(child) for child in module.children()]  # all of them
            inside[id(module)] = any(found)
        return inside[id(module)] or id(module) in modules

    visit(model)
    return {module for module, found in inside.items() if found}


def _writes(schema: Any, position: int, positional: int, kwargs: dict[str, Any]) -> bool:
    if position < positional:
        argument = schema.arguments[position]
    else:
        name = list(kwargs)[position - positional]
        argument = next(a for a in schema.arguments if a.name == name)
    return argument.alias_info is not None and argument.alias_info.is_write


def _flat(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (item for item in value if isinstance(item, Tensor))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _clean(path: str) -> str:
    """A module's path as it would be without `torch.compile`'s wrappers around it."""
    if path.split(".")[-1] == "_orig_mod":
        return "<compiled>"  # the wrapper has the name
    return path.replace("_orig_mod.", "")
