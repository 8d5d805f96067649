"""Answering the calls of a recorded forward pass again, from the first pivot on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from feedback_adapter.errors import SiteError
from feedback_adapter.sites.intercept import Handler, plain_call
from feedback_adapter.sites.nested import map_tensors, named_tensors, replace_tensor
from feedback_adapter.sites.recording import Call, Recording
from feedback_adapter.sites.saved import SavedTensor
from feedback_adapter.sites.site import INPUT, Site

Edit = Callable[[Tensor], Tensor]
"""Makes the activation to go on with from the one that arrives at a pivot."""


class Replay:
    """Follows the calls that the model makes again along those of a recording.

    Args:
        recording: The forward pass to follow. It is only read.
        edits: What to do at the pivots, by site.
        from_start: Whether everything runs again, since a pivot is on the model's input.
    """

    def __init__(
        self, recording: Recording, edits: Mapping[Site, Edit], *, from_start: bool = False
    ) -> None:
        self._edits = edits
        self._first = None if from_start else recording.first
        self._frame: Call | None = recording.caller
        self._next = 0
        self._left = {site for site in edits if site.module != INPUT}
        self._free = from_start and not self._left

    def handle(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a module call; the calls inside one that runs as a whole aren't looked at.

        Behind the last pivot the model may take any path: there is nothing left to answer.
        """
        if self._free:
            return plain_call(module, args, kwargs, None)
        call = self.follow(module)
        if self.finished(call):
            return self.answer(call)
        return self.run(call, args, kwargs, self.handle if call.contains_pivot else None)

    def follow(self, module: nn.Module) -> Call:
        """The recorded call that this one repeats; where the pass made another, a `SiteError`."""
        assert self._frame is not None, "a call that runs as a whole is not followed"
        position = self._next
        self._next += 1
        calls = self._frame.children
        call = calls[position] if position < len(calls) else None
        if call is None or call.module is not module:
            raise SiteError(
                f"The model took another path than in the recorded pass: inside "
                f"{self._frame.path!r}, call {position} went to {type(module).__name__}. "
                "Choose a later pivot."
            )
        return call

    def finished(self, call: Call) -> bool:
        """Whether the recording answers the call: it is the first pivot's, or was over by then."""
        first = self._first
        if first is None:
            return False
        return call is first or (not call.contains_pivot and 0 <= call.end < first.end)

    def answer(self, call: Call) -> Any:
        """What a finished call returned, with the first pivot's activation edited."""
        pivots = dict(call.pivots) if call is self._first else {}
        return map_tensors(
            call.value, lambda name, saved: self._give(saved, pivots.get(name)), leaf=SavedTensor
        )

    def run(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], handler: Handler | None
    ) -> Any:
        """Run the code of a call again; the calls inside it go to `handler`."""
        outside = self._frame, self._next
        self._frame, self._next = (call if call.contains_pivot else None), 0
        try:
            value = plain_call(call.module, args, kwargs, handler)
        finally:  # a model may catch what a module of its raises
            self._frame, self._next = outside
        for selector, site in call.pivots:
            if site in self._edits:
                tensor = dict(named_tensors(value))[selector]
                value = replace_tensor(value, selector, self._edited(site, tensor))
        return value

    @property
    def following(self) -> bool:
        """Whether the code that runs contains a pivot, so that its calls are followed."""
        return self._frame is not None

    def _give(self, saved: SavedTensor, site: Site | None) -> Tensor:
        if site is None or site not in self._edits:
            return saved.give()
        tensor = self._edited(site, saved.value())
        return tensor.clone() if saved.copied else tensor

    def _edited(self, site: Site, tensor: Tensor) -> Tensor:
        self._left.discard(site)
        self._free = not self._left
        return self._edits[site](tensor)
