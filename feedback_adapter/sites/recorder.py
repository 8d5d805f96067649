"""Recording a forward pass.

While the pass runs, a dispatch mode watches which finished outputs are touched by code that
a replay runs again (the forward of a module that contains the pivot, or anything after the
pivot): only these are kept, and only those that are modified in place are copied. Everything
else is held weakly and dies when the model drops it, so that recording takes no more memory
than the plain forward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from feedback_adapter.sites.frozen import ran
from feedback_adapter.sites.inputs import Inputs, named_errors
from feedback_adapter.sites.intercept import intercept, plain_call
from feedback_adapter.sites.nested import is_dense, map_tensors, named_tensors, replace_tensor
from feedback_adapter.sites.recording import Call, Recording
from feedback_adapter.sites.replay import Replay
from feedback_adapter.sites.saved import SavedTensor
from feedback_adapter.sites.site import INPUT, Site
from feedback_adapter.sites.torch_patches import storage_of


class _InputIsWrittenError(BaseException):
    """The model is about to modify the user's images: not for models to catch."""


def record(
    model: nn.Module,
    inputs: Inputs,
    *,
    pivots: Iterable[Site] = (),
    given: Mapping[Site, Tensor] | None = None,
    keep_all: bool = False,
    through: Recording | None = None,
) -> Recording:
    """Record a forward pass; one that modifies its inputs in place gets copies of them.

    Args:
        model: The model to run.
        inputs: Its arguments, which stay what they are.
        pivots: The sites to run again from; none to see the tree alone.
        given: Activations to put in place of what the model computes, by site.
        keep_all: Keep and copy every output, in case watching misses something.
        through: A recording of the same pass from earlier pivots on: what it knows is taken
            from it, and only the rest is computed.
    """
    guarded = {storage_of(tensor) for _, tensor in named_tensors((inputs.args, inputs.kwargs))}
    recorder = _Recorder(model, pivots, given or {}, keep_all, through, guarded)
    with torch.no_grad():
        try:
            return recorder.run(inputs)
        except _InputIsWrittenError:
            recorder = _Recorder(model, pivots, given or {}, keep_all, through, None)
            return recorder.run(inputs.copy())


class _Recorder(TorchDispatchMode):
    """Watches one forward pass. See `record`.

    `guarded` is the memory that the model mustn't write to; `None` where it runs on copies.
    """

    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let `torch.cond` and `flex_attention` compile what they call, as they always do."""
        return True

    def __init__(
        self,
        model: nn.Module,
        pivots: Iterable[Site],
        given: Mapping[Site, Tensor],
        keep_all: bool,
        through: Recording | None,
        guarded: set[int] | None,
    ) -> None:
        super().__init__()
        self._model, self._pivots, self._given = model, set(pivots), given
        self._keep_all, self._copies_inputs = keep_all, guarded is None
        self._guarded = guarded or set()
        self._replay = None if through is None else Replay(through, {})
        self._macs = 0
        self._calls: list[Call] = []
        self._first: Call | None = None
        self._activations: dict[Site, SavedTensor] = {}
        self._paths: dict[int, str] = {}
        self._above: set[int] = set()
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._stack = [Call(model, "", -1, None)]  # stands for the caller
        self._by_id: dict[int, SavedTensor] = {}
        self._by_storage: defaultdict[int, list[SavedTensor]] = defaultdict(list)

    def run(self, inputs: Inputs) -> Recording:
        """Run the model once, till it is about to modify a guarded input."""
        self._paths = paths_of(self._model)
        named = {site.module for site in self._pivots}
        holders = {id for id, path in self._paths.items() if path in named}
        self._above = _above(self._model, holders)
        with named_errors(self._model, inputs), intercept(self._call), self:
            value = self._model(*inputs.args, **inputs.kwargs)
        for _, tensor in named_tensors(value):
            self._touch(tensor, returned=True)
        if self._replay is None:
            ran(self._model)
        self._by_id.clear()
        self._by_storage.clear()
        return Recording(
            value, self._stack[0], self._calls, self._first, self._activations,
            self._macs, self._copies_inputs, self._keep_all,
        )  # fmt: skip

    # ---- what happens at each module call ----

    def _call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        index = self._counts[id(module)]
        self._counts[id(module)] += 1
        path = self._paths.get(id(module), f"<{type(module).__name__}>")
        call = Call(module, path, index, self._stack[-1])
        self._stack[-1].children.append(call)
        self._stack.append(call)
        try:
            value = self._give(call, self._run(call, args, kwargs))
        except BaseException:  # the model may catch it: then a replay makes the call again
            for _, tensor in named_tensors((args, kwargs)):
                self._touch(tensor, returned=True)
            raise
        finally:
            self._stack.pop()
        self._finish(call, value)
        return value

    def _run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._replay is None or not self._replay.following:
            return plain_call(call.module, args, kwargs, self._call)
        known = self._replay.follow(call.module)
        if not self._replay.finished(known):
            return self._replay.run(known, args, kwargs, self._call)
        call.children = known.children
        for inside in known.descendants():
            self._counts[id(inside.module)] += 1
        return self._replay.answer(known)

    def _give(self, call: Call, value: Any) -> Any:
        for site, tensor in self._given.items():
            if (site.module, site.call) == (call.path, call.index):
                value = replace_tensor(value, site.selector, tensor.clone())
        return value

    def _finish(self, call: Call, value: Any) -> None:
        call.end, call.macs = len(self._calls), self._macs
        self._calls.append(call)
        dense = [(n, t) for n, t in named_tensors(value) if is_dense(t)]
        call.tensors = [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in dense]
        for site in self._pivots:
            if (site.module, site.call) == (call.path, call.index):
                self._pivot(call, site, value)
        if self._first is None or call is self._first:
            call.value = map_tensors(value, lambda _, tensor: self._watch(tensor))
        if not call.contains_pivot:
            for child in call.children:  # inside a call that will be replayed as a whole
                child.value = None
            for saved in call.overwritten:
                saved.forget()
            call.read_inside.clear()
            call.overwritten.clear()

    def _pivot(self, call: Call, site: Site, value: Any) -> None:
        tensors = dict(named_tensors(value))
        if site.selector not in tensors:
            return
        if self._first is None:
            self._first = call
            for frame in call.ancestors():
                for saved, tensor in frame.read_inside:
                    saved.keep(tensor)
                frame.read_inside.clear()
        for frame in call.ancestors():
            frame.contains_pivot = True
        call.pivots.append((site.selector, site))
        saved = self._watch(tensors[site.selector])
        saved.keep(tensors[site.selector])
        self._activations[site] = saved

    # ---- what happens at each tensor operation ----

    def _watch(self, tensor: Tensor) -> Any:
        saved = self._by_id.get(id(tensor))
        if saved is None or saved.copied or not saved.is_(tensor):
            saved = SavedTensor(tensor, strong=self._keep_all)
            if self._keep_all:
                saved.copy()
            self._by_id[id(tensor)] = saved
            self._by_storage[storage_of(tensor)].append(saved)
        return saved

    def _touch(self, tensor: Tensor, *, returned: bool = False) -> None:
        saved = self._by_id.get(id(tensor))
        if saved is None or not saved.is_(tensor):
            return
        if self._first is not None or returned:
            saved.keep(tensor)
        elif id(self._stack[-1].module) in self._above:
            self._stack[-1].read_inside.append((saved, tensor))

    def _modify(self, tensor: Tensor) -> None:
        frame = self._stack[-1]
        if self._first is None and not frame.module._modules:  # pyright: ignore[reportPrivateUsage]
            return  # inside a call that is replayed: its output is the modified tensor
        for saved in self._by_storage.get(storage_of(tensor), ()):
            if saved.copy() and self._first is None:
                frame.overwritten.append(saved)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):  # such as torch.cond, flex_attention
            for _, tensor in named_tensors((args, kwargs)):
                self._touch(tensor)
            return func(*args, **kwargs)
        schema = func._schema
        if self._by_id or schema.is_mutable:
            for position, value in enumerate((*args, *kwargs.values())):
                for tensor in _flat(value):
                    self._touch(tensor)
                    if schema.is_mutable and _writes(schema, position, len(args), kwargs):
                        if storage_of(tensor) in self._guarded:
                            raise _InputIsWrittenError
                        self._modify(tensor)
        result = func(*args, **kwargs)
        count = None if self._pivots else flop_registry.get(func._overloadpacket)
        if count is not None:  # only where sites are looked for: it takes time in each operation
            self._macs += count(*args, **kwargs, out_val=result) // 2
        return result


def paths_of(model: nn.Module) -> dict[int, str]:
    """The first part of a site's name, by the id of the module."""
    return {id(module): _clean(name) for name, module in model.named_modules()}


def _above(model: nn.Module, modules: set[int]) -> set[int]:
    """Ids of what has one of the modules inside: what may call it (else `keep_all` is there)."""
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


def _clean(path: str) -> str:
    """A module's path as it would be without `torch.compile`'s wrappers around it."""
    if path.split(".")[-1] == "_orig_mod":
        return "<compiled>"  # the wrapper has the name
    path = path.replace("_orig_mod.", "")
    return f".{path}" if path in (INPUT, "auto") else path  # these words mean something else
