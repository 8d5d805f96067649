"""Re-running only what follows a pivot.

A replay runs the code of every module that contains a pivot, and of everything after
the first pivot. Calls that had finished before it return what they returned in the
recorded forward pass; the pivot's call returns the given activation. So a tail follows
any Python control flow and costs what a model cut by hand costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.errors import SiteError, did_you_mean
from feedback_adapter.sites.inputs import Inputs, named_errors
from feedback_adapter.sites.intercept import intercept
from feedback_adapter.sites.nested import is_dense, named_tensors
from feedback_adapter.sites.recorder import record
from feedback_adapter.sites.recording import Call, Recording
from feedback_adapter.sites.replay import Edit, Replay
from feedback_adapter.sites.saved import SavedTensor
from feedback_adapter.sites.site import INPUT, Site

__all__ = ["Edit", "Tail"]


class Tail:
    """The part of a model that follows the first of one or several pivots. Make it with `record`.

    Args:
        model: The user's model. It is never changed.
        inputs: The images and whatever else the model takes.
        recording: One forward pass with these inputs.
        pivots: The pivots in the order in which the model computes them, with what arrived
            at each.
        given: Activations that replace what the model computes at other sites.
        shared: Whether other tails read the same recording.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        recording: Recording,
        pivots: Mapping[Site, SavedTensor],
        given: Mapping[Site, Tensor],
        *,
        shared: bool = False,
    ) -> None:
        self._model, self._inputs, self._recording = model, inputs, recording
        self._saved, self._given, self._shared = dict(pivots), dict(given), shared

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

    def at(self, pivots: Sequence[Site | str], given: Mapping[str, Tensor] | None = None) -> Tail:
        """The tail from some of these pivots on; this one stays what it is.

        It reads the same recording where it begins at the same pivot. Otherwise one run of
        this tail is recorded, from its first pivot on, and nothing before it.

        Args:
            pivots: Some of `pivots`, or their names.
            given: Activations that replace what the model computes at the others, by name.

        Raises:
            SiteError: A pivot isn't one of this tail's.
        """
        wanted = [Site.of(pivot) for pivot in pivots]
        replaced = {Site.of(name): tensor for name, tensor in (given or {}).items()}
        for site in (*wanted, *replaced):
            if site not in self._saved:
                names = [pivot.name for pivot in self.pivots]
                raise SiteError(f"{site.name!r} isn't a pivot of this tail: {names} are.")
        first = self._recording.first
        begins = [_INPUT, *([site for _, site in first.pivots] if first else [])]
        if not replaced and any(site in begins for site in wanted):
            saved = {site: saved for site, saved in self._saved.items() if site in wanted}
            return Tail(self._model, self._inputs, self._recording, saved, self._given, shared=True)
        return _record(
            self._model, self._inputs, wanted, {**self._given, **replaced},
            keep_all=self._recording.keep_all,
            through=None if _INPUT in replaced else self._recording,
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept for replays and of what the model returned."""
        return self._recording.nbytes

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
        """Drop the first pivot's activation, unless others need it: its edit may get NaN now."""
        if not self._shared:
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
        value = self._replay(dict(zip(self.pivots, edits, strict=True)))
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

    def _replay(self, edits: Mapping[Site, Edit]) -> Any:
        inputs = self._inputs.copy() if self._recording.copies_inputs else self._inputs
        if _INPUT in edits:
            image = edits[_INPUT](self._saved[_INPUT].value())
            inputs = inputs.replace(image.clone())  # a model may modify its input in place
        replay = Replay(self._recording, edits, from_start=_INPUT in edits)
        with named_errors(self._model, inputs, self.pivots[0].name), intercept(replay.handle):
            return self._model(*inputs.args, **inputs.kwargs)


def _record(
    model: nn.Module,
    inputs: Inputs,
    pivots: Sequence[Site],
    given: Mapping[Site, Tensor],
    *,
    keep_all: bool,
    through: Recording | None = None,
) -> Tail:
    if _INPUT in given:
        inputs = inputs.replace(given[_INPUT])
    recording = record(
        model, inputs, pivots=pivots, given=given, keep_all=keep_all, through=through
    )
    saved = dict(recording.activations)
    if _INPUT in pivots:
        saved = {_INPUT: SavedTensor(inputs.images, strong=True), **saved}
    for site in pivots:
        if site not in saved:
            raise SiteError(_no_such_site(site, recording.calls))
    for site, activation in saved.items():
        value = activation.value()
        if not value.is_floating_point() or not is_dense(value):
            kind = "nested" if value.is_nested else value.layout
            raise SiteError(
                f"{site.name!r} is {value.dtype}, {kind}: a pivot must be floating point and dense."
                " Choose one of `adapter.sites(images)`."
            )
        shape = tuple(value.shape)
        if shape[:1] != (inputs.batch,):
            raise SiteError(
                f"{site.name!r} is {shape} for {inputs.batch} images: the first dimension of a "
                "pivot must be the batch. Choose one of `adapter.sites(images)`."
            )
    return Tail(model, inputs, recording, saved, given)


_INPUT = Site(INPUT)


def _same(value: Any, recorded: Any) -> bool:
    old = dict(named_tensors(recorded))
    for name, tensor in named_tensors(value):
        if not tensor.is_floating_point() or tensor.is_nested:
            continue
        tensor, expected = tensor.to_dense(), old[name].to_dense()
        finite = expected.nan_to_num(posinf=0.0, neginf=0.0)
        scale = max(float(finite.abs().amax()), 1e-6) if finite.numel() else 1.0
        if not torch.allclose(tensor, expected, rtol=0, atol=1e-2 * scale, equal_nan=True):
            return False
    return True


def _no_such_site(site: Site, calls: Sequence[Call]) -> str:
    module, index, selector = site.key
    here = [call for call in calls if call.path == module]
    if module == INPUT:
        return f"There is no {site.name!r}: 'input' is the images, one tensor."
    if not any(call.path for call in calls):
        return "The model calls no modules that can be watched, as in TorchScript. Use 'input'."
    if not here:
        called = {INPUT, *(call.path for call in calls)} - {""}
        return f"The model doesn't call {module!r} for these images. {did_you_mean(module, called)}"
    if all(call.index != index for call in here):
        return f"{module!r} is called {len(here)} times, from #0 on: there is no #{index}."
    names = [name for name, *_ in here[index].tensors]
    return f"{module!r} returns no tensor {selector!r}. It returns {names or 'no tensor'}."
