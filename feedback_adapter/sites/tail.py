"""Re-running only what follows a pivot.

A replay runs the code of every module that contains a pivot, and of everything after
the first pivot. Calls that had finished before it return what they returned in the
recorded forward pass; the pivot's call returns the given activation. So a tail follows
any Python control flow and costs what a model cut by hand costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.errors import SiteError, did_you_mean
from feedback_adapter.sites.calls import intercept, plain_call
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.record import Call, Kept, Recording, record
from feedback_adapter.sites.site import INPUT, Site, parse_site
from feedback_adapter.sites.structure import map_tensors, named_tensors, replace_tensor

__all__ = ["Edit", "Tail"]

Edit = Callable[[Tensor], Tensor]
"""Makes the activation to go on with from the one that arrives at a pivot."""


class Tail:
    """The part of a model that follows the first of one or several pivots.

    Make it inside `feedback_adapter.sites.borrow.borrowed(model)`, which holds the model
    still. One forward pass is recorded here; `run` then costs only what follows.

    Args:
        model: The user's model. It is never changed.
        inputs: The images and whatever else the model takes.
        pivots: Sites or their names, at least one, in any order.
        given: Activations that replace what the model computes at other sites.

    Attributes:
        value: What the model returned in the recorded pass.
        pivots: The pivots in the order in which the model computes them, as site keys.

    Raises:
        SiteError: A pivot isn't in the model, or isn't a floating-point activation.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        pivots: Sequence[Site | str],
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not pivots:
            raise SiteError("A tail needs at least one pivot. Name one of `adapter.sites(images)`.")
        self._model = model
        self._inputs = inputs
        self._wanted = [parse_site(pivot) for pivot in pivots]
        self._given = {parse_site(name): tensor for name, tensor in (given or {}).items()}
        self._record(careful=False)

    def _record(self, *, careful: bool) -> None:
        inputs = self._inputs
        if _INPUT_KEY in self._given:
            inputs = inputs.replace(self._given[_INPUT_KEY])
        recording = record(
            self._model, inputs, pivots=self._wanted, given=self._given, careful=careful
        )
        self._recording, self._base, self._careful = recording, inputs, careful
        self.value = recording.value
        kept = dict(recording.activations)
        if _INPUT_KEY in self._wanted:
            kept = {_INPUT_KEY: Kept(inputs.images, strong=True), **kept}
        missing = [key for key in self._wanted if key not in kept]
        if missing:
            raise SiteError(_no_such_site(missing[0], recording.calls))
        self.pivots = tuple(kept)
        self._kept = tuple(kept.values())
        for key, tensor in zip(self.pivots, self.activations, strict=True):
            if not tensor.is_floating_point():
                raise SiteError(
                    f"{Site(*key).name!r} is {tensor.dtype}: a pivot must be floating point."
                )

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """The recorded activation of each pivot, in the order of `pivots`."""
        return tuple(kept.value() for kept in self._kept)

    def forget_first(self) -> None:
        """Drop the first pivot's activation: from now on its edit gets NaN to start from."""
        self._kept[0].tensor = None

    def run(self, edits: Sequence[Edit], *, check: bool = False) -> Any:
        """Run the tail with each pivot's activation edited.

        Args:
            edits: One function per pivot, in the order of `pivots`. The first gets the
                recorded activation, a later one what the model computes by then.
            check: Compare with the recorded output; pass edits that change nothing.

        Returns:
            What the model returns, in the caller's grad mode.

        Raises:
            SiteError: The model took another path than in the recorded pass, or `check`
                found another result.
        """
        value = _Replay(self._recording, dict(zip(self.pivots, edits, strict=True)), self._kept)(
            self._model, self._base
        )
        if check and not _same(value, self.value):
            if self._careful:
                raise SiteError(
                    f"Replaying what follows {Site(*self.pivots[0]).name!r} gave another result "
                    "than the forward pass: the model isn't deterministic, or keeps state between "
                    "calls. Choose another pivot."
                )
            self._record(careful=True)
            return self.run(edits, check=True)
        return value


_INPUT_KEY = (INPUT, 0, "")


class _Replay:
    """Answers the module calls of one run."""

    def __init__(
        self,
        recording: Recording,
        edits: Mapping[tuple[str, int, str], Edit],
        kept: Sequence[Kept],
    ) -> None:
        self._edits = edits
        self._first = None if _INPUT_KEY in edits else recording.first
        self._root = recording.root
        self._copies = recording.copies_inputs
        self._frame = Call(recording.root.module, "", -1, None)
        self._frame.children = [recording.root]
        self._next = 0
        self._image = kept[0] if _INPUT_KEY in edits else None

    def __call__(self, model: nn.Module, inputs: Inputs) -> Any:
        if self._copies:
            inputs = inputs.copy()
        if self._image is not None:
            image = self._edits[_INPUT_KEY](self._image.value())
            inputs = inputs.replace(image.clone())  # a model may modify its input in place
        with intercept(self._call):
            return model(*inputs.args, **inputs.kwargs)

    def _call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        frame, position = self._frame, self._next
        self._next += 1
        call = frame.children[position] if position < len(frame.children) else None
        if call is None or call.module is not module:
            raise SiteError(
                f"The model took another path than in the recorded pass: inside {frame.path!r}, "
                f"call {position} went to {type(module).__name__}. Choose a later pivot."
            )
        first = self._first
        if call is first:
            value = map_tensors(call.value, lambda _, kept: kept, leaf=Kept)
            pivoted = dict(call.pivots)
            return map_tensors(
                value,
                lambda name, kept: self._inject(kept, pivoted.get(name)),
                leaf=Kept,
            )
        if not call.visited and first is not None and call.end < first.end:
            return map_tensors(call.value, lambda _, kept: kept.give(), leaf=Kept)
        if call.visited:
            self._frame, self._next = call, 0
            value = plain_call(module, args, kwargs, self._call)
            self._frame, self._next = frame, position + 1
        else:
            value = plain_call(module, args, kwargs, None)
        for selector, key in call.pivots:
            tensor = dict(named_tensors(value))[selector]
            value = replace_tensor(value, selector, self._edits[key](tensor))
        return value

    def _inject(self, kept: Kept, key: tuple[str, int, str] | None) -> Tensor:
        if key is None:
            return kept.give()
        tensor = self._edits[key](kept.value())
        return tensor.clone() if kept.modified else tensor


def _same(value: Any, recorded: Any) -> bool:
    old = dict(named_tensors(recorded))
    for name, tensor in named_tensors(value):
        if not tensor.is_floating_point():
            continue
        expected = old[name]
        finite = expected.nan_to_num(posinf=0.0, neginf=0.0)
        scale = max(float(finite.abs().amax()), 1e-6) if finite.numel() else 1.0
        if not torch.allclose(tensor, expected, rtol=0, atol=1e-2 * scale, equal_nan=True):
            return False
    return True


def _no_such_site(key: tuple[str, int, str], calls: Sequence[Call]) -> str:
    module, index, selector = key
    here = [call for call in calls if call.path == module]
    if not here:
        return f"There is no site {module!r}. {did_you_mean(module, {c.path for c in calls})}"
    if all(call.index != index for call in here):
        return f"{module!r} is called {len(here)} times, from #0 on: there is no #{index}."
    names = [name for name, *_ in here[index].tensors]
    return f"{module!r} returns no tensor {selector!r}. It returns {names or 'no tensor'}."
