"""Holding a model still while it is refined, and giving it back as it was.

For the time of a refinement only: evaluation mode, frozen parameters, and PyTorch's own
shortcuts off (see `feedback_adapter.sites.torch_patches`). Whatever is set is counted, so
that several threads can hold the same model, or models that share layers: the last one
restores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import threading
import types
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from operator import is_
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from feedback_adapter.errors import ModelError
from feedback_adapter.sites.intercept import answer, intercept, surely
from feedback_adapter.sites.torch_patches import Change, ThreadState, shortcuts_off
from feedback_adapter.sites.weights import Weights, same_bits

_lock = threading.Lock()


@contextlib.contextmanager
def frozen(model: nn.Module, *, watch: bool = True) -> Generator[None]:
    """Hold the model in evaluation mode with frozen parameters, outside inference mode.

    Args:
        model: The user's model.
        watch: Whether its calls will be watched: PyTorch's shortcuts would hide some of them.

    Raises:
        ModelError: The weights were made under `torch.inference_mode`, or are on the
            meta device.
    """
    modules = [*model.modules()]  # once: a walk over a model of many modules is slow
    parameters, buffers = _members(modules, "_parameters"), _members(modules, "_buffers")
    if any(is_lazy(t) or t.is_inference() or t.is_meta for t in (*parameters, *buffers)):
        _refuse(model)
    changes: list[Change] = [(parameter, "requires_grad", False) for parameter in parameters]
    changes += shortcuts_off(modules) if watch else []
    holder, thread, calls, late = object(), ThreadState(), intercept(None), False

    def give_back() -> None:
        if not late:
            thread.put_back()
            calls.__exit__()
        _restore(holder)

    try:
        _set(holder, changes, modules, watch)
        with torch.inference_mode(False), calls:
            if watch:
                thread.watch()
            yield
    except GeneratorExit:  # an interrupt struck before this was told to end: now, other code
        late = True  # may run in this thread, and what it set is its own
        raise
    finally:
        try:
            surely(give_back)
        except KeyboardInterrupt:  # maybe before it began
            surely(give_back)
            raise


def ran(model: nn.Module) -> None:
    """Note that a whole forward pass of a model was finished while it is held."""
    for module in model.modules():
        if id(module) in _states:
            _states[id(module)].ran = True


def _members(modules: list[nn.Module], kind: str) -> list[Tensor]:
    """The parameters or buffers of some modules, each once."""
    found = [tensor for module in modules for tensor in getattr(module, kind).values()]
    return [*{id(tensor): tensor for tensor in found if tensor is not None}.values()]


def _refuse(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ModelError(
                f"{name!r} has no shape yet: the model has lazy modules and hasn't run. "
                "Run it once on images, model(images), then refine."
            )
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


class _Held:
    """What one attribute was before, and who needs it changed."""

    __slots__ = ("before", "holders", "name", "owner")

    def __init__(self, owner: Any, name: str, holders: frozenset[object]) -> None:
        self.owner, self.name, self.before = owner, name, getattr(owner, name)
        self.holders = holders

    def put_back(self) -> None:
        if getattr(self.owner, self.name) is not self.before:
            setattr(self.owner, self.name, self.before)


def _set(holder: object, changes: list[Change], modules: list[nn.Module], watch: bool) -> None:
    only = frozenset({holder})
    with _lock:
        for module in modules:
            state = _states.get(id(module))
            if state is None:
                _states[id(module)] = _State(module, only)
            else:
                state.holders |= only
            if watch:
                answer(module)
        for owner, name, _ in changes:  # all of them before any is changed
            held = _held.get((id(owner), name))
            if held is None:
                _held[id(owner), name] = _Held(owner, name, only)
            else:
                held.holders |= only
        own = [_evaluate(module) for module in modules if module.training]
        if any(own):
            for module in modules:
                _states[id(module)].parts_changed()
        for owner, name, value in changes:
            if getattr(owner, name) is not value:
                setattr(owner, name, value)


def _evaluate(module: nn.Module) -> bool:
    """Put one module into evaluation mode, and say whether that is its own code.

    Such code may write to weights, as loralib's layers do, which merge them.
    """
    kind = type(module)
    own = kind.eval is not nn.Module.eval or kind.train is not nn.Module.train
    weights = [(p, p.detach().clone()) for p in module.parameters()] if own else []
    try:
        _set_mode(module, False)
    except Exception as error:
        raise ModelError(
            f"{kind.__name__} can't be put into evaluation mode: {error!r}. "
            "Check that model.eval() works."
        ) from error
    merged = [(p, value) for p, value in weights if not same_bits(p.detach(), value)]
    _states[id(module)].merged += merged
    return own


def _set_mode(module: nn.Module, training: bool) -> None:
    """Set one module's mode, by its own `eval` or `train` where it has one."""
    if module.training is training:
        return
    if not training and type(module).eval is not nn.Module.eval:
        module.eval()
    elif type(module).train is not nn.Module.train:
        module.train(training)
    else:
        module.training = training


def _restore(holder: object) -> None:
    """Put back what nobody else holds; it can be called again where it was interrupted."""
    errors: list[Exception] = []
    only = frozenset({holder})
    with _lock, torch.no_grad():
        for state in _states.values():
            if state.holders == only:
                try:
                    _set_mode(state.module, state.training)
                except Exception as error:  # in a model's own `train`: the rest goes on
                    vars(state.module)["training"] = state.training
                    named = ModelError(
                        f"{type(state.module).__name__} can't be put back into training mode: "
                        f"{error!r}. Call model.eval() before."
                    )
                    named.__cause__ = error
                    errors.append(named)
        for held in cast("tuple[dict[Any, Any], ...]", (_held, _states)):
            for key, what in list(held.items()):
                if what.holders == only:
                    try:
                        what.put_back()
                    except Exception as error:
                        errors.append(error)
                    del held[key]
                else:
                    what.holders -= only
    if errors:
        raise errors[0]


class _State:
    """What a module's forward pass may write to: its attributes and its buffers.

    Of attributes that are lists, dictionaries, sets or deques, and of objects of the user's own
    classes, the members are put back, too, at any depth; torch's own ones, such as the hooks, stay
    as the user's code leaves them. There are many modules, and all of them are looked at in each
    refinement: what is empty isn't copied.
    """

    __slots__ = (
        "buffers", "fused", "holders", "members", "merged", "module", "names", "parts", "ran",
        "tensors", "training", "weights",
    )  # fmt: skip

    def __init__(self, module: nn.Module, holders: frozenset[object]) -> None:
        self.module, self.holders, self.training = module, holders, module.training
        here, buffers = vars(module), module._buffers  # pyright: ignore[reportPrivateUsage]
        self.names = here.copy()
        self.buffers: dict[str, Any] | None = None  # as for TorchScript's
        if isinstance(buffers, dict):
            self.buffers = buffers.copy() if buffers else _EMPTY
        self.parts: list[tuple[Any, Any, Any]] = [
            (held, before := held.copy(), before)
            for held in (module._modules, module._parameters)  # pyright: ignore[reportPrivateUsage]
            if type(held) is dict
        ]
        self.merged: list[tuple[Tensor, Tensor]] = []
        self.ran = False
        self.weights = Weights(module)
        own = [v for name, v in here.items() if name[0] != "_" and type(v) not in _PLAIN]
        self.members, found = _collect(own, type(module).__module__) if own else ([], [])
        self.tensors: Sequence[tuple[Tensor, int, bool, Tensor]] = ()
        if found or buffers:
            tensors = [t for t in found if not isinstance(t, nn.Parameter)]
            tensors += [buffer for buffer in buffers.values() if buffer is not None]
            self.tensors = [
                (t, t._version, t.requires_grad, t.detach().clone())
                for t in tensors
                if not t.is_inference()
            ]
        # fused operations write without a new version; torch's own layers don't, as they are held
        self.fused = type(module) not in _WRITE_NOTHING

    def parts_changed(self) -> None:
        """Note which parts the module has after the model's own code put it into evaluation."""
        self.parts = [(held, before, held.copy()) for held, before, _ in self.parts]

    def put_back(self) -> None:
        here = vars(self.module)
        _replace(here, self.names, "_compiled_call_impl")  # the answer, in every module
        if not _alike(here, self.names):
            for name in {*here, *self.names} - {"training"}:
                _replace(here, self.names, name)
        buffers = self.module._buffers  # pyright: ignore[reportPrivateUsage]
        if self.buffers is not None and not _alike(buffers, self.buffers):
            for name in {*buffers, *self.buffers}:
                _replace(buffers, self.buffers, name)
        for container, members in self.members:
            _refill(container, members)
        for tensor, version, graph, value in self.tensors:
            if tensor.requires_grad and not graph:
                tensor.detach_()
            if tensor._version != version or (self.fused and not same_bits(tensor, value)):
                if tensor.shape != value.shape:
                    tensor.resize_(value.shape)
                tensor.copy_(value)
        for weight, value in self.merged:
            if not same_bits(weight.detach(), value):
                weight.copy_(value)
        far = self.weights.put_back(ran=self.ran)
        grown = [not _alike(held, ran) for held, _, ran in self.parts]
        for held, before, _ in self.parts:
            if not _alike(held, before):
                _refill(held, before)
        if far or any(grown):
            what = "wrote to its own weights" if far else "made new parts of itself"
            raise ModelError(
                f"A {type(self.module).__name__} {what} when it ran, and is again what it was. Run "
                "the model once on images, model(images), then refine. What every pass writes "
                "must be a buffer, not a parameter."
            )


_EMPTY: dict[str, Any] = {}
_CONTAINERS = (list, dict, set, deque)
_PLAIN = {bool, int, float, str, tuple, type(None)}
"""What needn't be looked into, in most modules."""
_WHOLE = _PLAIN - {tuple}
_WRITE_NOTHING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _alike(here: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether two dictionaries hold the same objects under the same names, in the same order."""
    if len(here) != len(before):
        return False
    return all(map(is_, here.values(), before.values())) and all(map(is_, here, before))


def _replace(here: dict[str, Any], before: dict[str, Any], name: str) -> None:
    if name not in before:
        here.pop(name, None)
    elif name not in here or here[name] is not before[name]:
        here[name] = before[name]


def _collect(values: Iterable[Any], home: str) -> tuple[list[tuple[Any, Any]], list[Tensor]]:
    """What values hold at any depth: containers and objects' attributes with copies, and tensors.

    Args:
        values: What to look into.
        home: The Python module that the values' owner is defined in.
    """
    members: list[tuple[Any, Any]] = []
    tensors: list[Tensor] = []
    left, seen = list(values), set[int]()
    while left:
        value = left.pop()
        kind = type(value)
        if isinstance(value, Tensor):
            tensors.append(value)
        if kind in _WHOLE or isinstance(value, (Tensor, nn.Module, type)) or id(value) in seen:
            continue
        seen.add(id(value))
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
            with contextlib.suppress(TypeError, ValueError):  # of objects, or backwards
                tensors += [torch.from_numpy(value)] if value.flags.writeable else []
        elif isinstance(value, tuple):
            left.extend(value)
        held = [value] if isinstance(value, _CONTAINERS) else []
        if hasattr(value, "__dict__") and _is_state(kind, home):
            held.append(vars(value))
        for what in held:
            members.append((what, dict(what) if isinstance(what, dict) else list(what)))
            left.extend(what.values() if isinstance(what, dict) else what)
    return members, tensors


@functools.cache
def _is_state(kind: type[Any], home: str) -> bool:
    """Whether objects of a class may be what a model keeps: of its own package, or of the user's.

    Those of other packages that are installed, such as a trainer, hold the world.
    """
    if dataclasses.is_dataclass(kind) or kind is types.SimpleNamespace:
        return True
    package = kind.__module__.partition(".")[0]
    if package in {"torch", __name__.partition(".")[0], *sys.stdlib_module_names} - {"__main__"}:
        return False
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return package == home.partition(".")[0] or "-packages" not in file


def _refill(container: Any, members: Any) -> None:
    """Give a list, dictionary or set back the members that it had."""
    same = len(container) == len(members)
    if isinstance(container, (list, deque)):
        if not same or any(a is not b for a, b in zip(container, members, strict=True)):
            container.clear()
            container.extend(members)
    elif isinstance(container, dict):
        if not same or any(k not in container or container[k] is not v for k, v in members.items()):
            container.clear()
            container.update(members)
    elif not same or container != set(members):
        container.clear()
        container.update(members)


def _give_back_in_child() -> None:
    """A forked process has none of the threads that held a model."""
    global _lock
    _lock = threading.Lock()
    for state in _states.values():
        with contextlib.suppress(Exception):
            _set_mode(state.module, state.training)
    for held in (_held, _states):
        for what in list(held.values()):
            with torch.no_grad(), contextlib.suppress(Exception):
                what.put_back()
        held.clear()


_held: dict[tuple[int, str], _Held] = {}
_states: dict[int, _State] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_back_in_child)
