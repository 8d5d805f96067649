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
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.intercept import intercept, plain_call
from feedback_adapter.sites.nested import map_tensors, named_tensors, replace_tensor
from feedback_adapter.sites.recording import Call, Recording, record
from feedback_adapter.sites.saved import SavedTensor
from feedback_adapter.sites.site import INPUT, Site

__all__ = ["Edit", "Tail"]

Edit = Callable[[Tensor], Tensor]
"""Makes the activation to go on with from the one that arrives at a pivot."""


class Tail:
    """The part of a model that follows the first of one or several pivots. Make it with `record`.

    Args:
        model: The user's model. It is never changed.
        inputs: The images and whatever else the model takes.
        recording: One forward pass with these inputs.
        pivots: The pivots in the order in which the model computes them, with what arrived
            at each.
        given: Activations that replace what the model computes at other sites.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        recording: Recording,
        pivots: Mapping[Site, SavedTensor],
        given: Mapping[Site, Tensor],
    ) -> None:
        self._model, self._inputs, self._recording = model, inputs, recording
        self._saved, self._given = dict(pivots), dict(given)

    @classmethod
    def record(
        cls,
        model: nn.Module,
        inputs: Inputs,
        pivots: Sequence[Site | str],
        given: Mapping[str, Tensor] | None = None,
    ) -> Tail:
        """Record one forward pass; `run` then costs only what follows the first pivot.

        Call it inside `feedback_adapter.sites.frozen(model)`, which holds the model still.

        Args:
            model: The user's model. It is never changed.
            inputs: The images and whatever else the model takes.
            pivots: Sites or their names, at least one, in any order.
            given: Activations that replace what the model computes at other sites, by name.

        Raises:
            SiteError: A pivot isn't in the model, or isn't a floating-point activation.
        """
        if not pivots:
            raise SiteError("A tail needs at least one pivot. Name one of `adapter.sites(images)`.")
        replaced = {Site.of(name): tensor for name, tensor in (given or {}).items()}
        return _record(model, inputs, [Site.of(p) for p in pivots], replaced, keep_all=False)

    @property
    def value(self) -> Any:
        """What the model returned in the recorded pass."""
        return self._recording.value

    @property
    def pivots(self) -> tuple[Site, ...]:
        """The pivots in the order in which the model computes them."""
        return tuple(self._saved)

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """The recorded activation of each pivot, in the order of `pivots`."""
        return tuple(saved.value() for saved in self._saved.values())

    def forget_first(self) -> None:
        """Drop the first pivot's activation: from now on its edit gets NaN to start from."""
        self._saved[self.pivots[0]].tensor = None

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
        edited = dict(zip(self.pivots, edits, strict=True))
        value = _Replay(self._recording, edited, self._saved.get(_INPUT)).run(
            self._model, self._inputs
        )
        if check and not _same(value, self.value):
            if self._recording.keep_all:
                raise SiteError(
                    f"Replaying what follows {self.pivots[0].name!r} gave another result "
                    "than the forward pass: the model isn't deterministic, or keeps state between "
                    "calls. Choose another pivot."
                )
            again = _record(self._model, self._inputs, self.pivots, self._given, keep_all=True)
            vars(self).update(vars(again))
            return self.run(edits, check=True)
        return value


def _record(
    model: nn.Module,
    inputs: Inputs,
    pivots: Sequence[Site],
    given: Mapping[Site, Tensor],
    *,
    keep_all: bool,
) -> Tail:
    if _INPUT in given:
        inputs = inputs.replace(given[_INPUT])
    recording = record(model, inputs, pivots=pivots, given=given, keep_all=keep_all)
    saved = dict(recording.activations)
    if _INPUT in pivots:
        saved = {_INPUT: SavedTensor(inputs.images, strong=True), **saved}
    for site in pivots:
        if site not in saved:
            raise SiteError(_no_such_site(site, recording.calls))
    for site, activation in saved.items():
        if not activation.value().is_floating_point():
            raise SiteError(
                f"{site.name!r} is {activation.value().dtype}: a pivot must be floating point."
            )
    return Tail(model, inputs, recording, saved, given)


_INPUT = Site(INPUT)


class _Replay:
    """Answers the module calls of one run."""

    def __init__(
        self, recording: Recording, edits: Mapping[Site, Edit], image: SavedTensor | None
    ) -> None:
        self._edits, self._image = edits, image
        self._first = recording.first if image is None else None
        self._copies = recording.copies_inputs
        self._frame = Call(recording.root.module, "", -1, None)
        self._frame.children = [recording.root]
        self._next = 0

    def run(self, model: nn.Module, inputs: Inputs) -> Any:
        """Call the model."""
        if self._copies:
            inputs = inputs.copy()
        if self._image is not None:
            image = self._edits[_INPUT](self._image.value())
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
            pivots = dict(call.pivots)
            return map_tensors(
                call.value,
                lambda name, saved: self._inject(saved, pivots.get(name)),
                leaf=SavedTensor,
            )
        if not call.contains_pivot and first is not None and call.end < first.end:
            return map_tensors(call.value, lambda _, saved: saved.give(), leaf=SavedTensor)
        if call.contains_pivot:
            self._frame, self._next = call, 0
            value = plain_call(module, args, kwargs, self._call)
            self._frame, self._next = frame, position + 1
        else:
            value = plain_call(module, args, kwargs, None)
        for selector, site in call.pivots:
            tensor = dict(named_tensors(value))[selector]
            value = replace_tensor(value, selector, self._edits[site](tensor))
        return value

    def _inject(self, saved: SavedTensor, site: Site | None) -> Tensor:
        if site is None:
            return saved.give()
        tensor = self._edits[site](saved.value())
        return tensor.clone() if saved.copied else tensor


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


def _no_such_site(site: Site, calls: Sequence[Call]) -> str:
    module, index, selector = site.key
    here = [call for call in calls if call.path == module]
    if not here:
        return f"There is no site {module!r}. {did_you_mean(module, {c.path for c in calls})}"
    if all(call.index != index for call in here):
        return f"{module!r} is called {len(here)} times, from #0 on: there is no #{index}."
    names = [name for name, *_ in here[index].tensors]
    return f"{module!r} returns no tensor {selector!r}. It returns {names or 'no tensor'}."
