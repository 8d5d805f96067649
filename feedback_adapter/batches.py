"""One loop over a data set: some images at a time, and the results joined or handed on.

Everything that goes over more images than fit into memory at once uses this: predicting,
refining, evaluating, fitting.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor

from feedback_adapter.errors import InputError, OptionsError

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter
    from feedback_adapter.evidence.base import Evidence
    from feedback_adapter.refinement import Refinement

__all__ = ["Joinable", "in_batches", "join", "read_ahead", "refine_batches", "split"]


class Joinable(Protocol):
    """What holds something per image and can be joined: `Outputs` and `Refinement` are such."""

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The parts as one, in their order."""
        ...


_PAIRS = "it must give pairs, of the images of a batch and what is known of them"

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT", bound="Tensor | Joinable")


def split(count: int, size: int, device: torch.device | str | None = None) -> list[Tensor]:
    """The numbers of the images of each batch: 0, 1, ..., `count` - 1 in runs of `size`.

    Args:
        count: Number of images.
        size: Images per batch, at least 1; the last batch may have fewer.
        device: Where the numbers are to be; by default on the CPU.

    Raises:
        OptionsError: The size is less than 1.

    Example:
        >>> [rows.tolist() for rows in split(5, 2)]
        [[0, 1], [2, 3], [4]]
    """
    if not isinstance(size, int) or size < 1:
        raise OptionsError(f"batch={size!r} is out of range: it must be a whole number from 1 on.")
    return [rows for rows in torch.arange(max(count, 0), device=device).split(size) if len(rows)]


def join(parts: Sequence[ResultT]) -> ResultT:
    """What batches gave as one: tensors along their first dimension, or what has a `cat`.

    Raises:
        InputError: There is no part.

    Example:
        >>> join([torch.zeros(2, 3), torch.ones(1, 3)]).shape
        torch.Size([3, 3])
    """
    if not parts:
        raise InputError("There is no image: nothing can be joined. Pass at least one.")
    if isinstance(parts[0], Tensor):
        return cast("Any", torch.cat(cast("list[Tensor]", list(parts))))
    return cast("Any", type(parts[0])).cat(parts)


def in_batches(
    function: Callable[[Tensor], ResultT],
    count: int,
    size: int = 64,
    *,
    device: torch.device | str | None = None,
) -> ResultT:
    """Go over a data set, some images at a time, and join what comes of it.

    Args:
        function: Takes the numbers (k,) of some of the images, and returns a tensor (k, ...),
            `Outputs` or a `Refinement` of them.
        count: Number of images.
        size: Images per batch, at least 1.
        device: Where the numbers that `function` gets are to be; by default on the CPU.

    Returns:
        What the function returned, joined in the order of the images.

    Raises:
        InputError: There is no image.
        OptionsError: The size is less than 1.

    Example:
        Predicting and refining a thousand images, 64 at a time::

            outputs = in_batches(lambda rows: adapter.unrefined(images[rows]), 1000)
            result = in_batches(
                lambda rows: adapter.refine(images[rows], evidence.take(rows)), 1000
            )

        The evidence must be bound first where it is in words, so that it can be taken apart:
        `evidence = Labels(...).bind(adapter.outputs, 1000)`.

        >>> in_batches(lambda rows: rows * 10, 5, 2)
        tensor([ 0, 10, 20, 30, 40])
    """
    return join([function(rows) for rows in split(count, size, device)])


def refine_batches(
    adapter: Adapter, source: Iterable[tuple[Any, Evidence]], *, ahead: int = 2, **arguments: Any
) -> Generator[Refinement]:
    """Refine a data set batch by batch, in memory that doesn't grow with its size.

    A thread reads the next batches from the source, and opens their photos, while the model works
    on this one.

    Args:
        adapter: The model.
        source: Anything to go over that gives a batch at a time: its images, and what is known of
            them. Images are as for `Adapter.refine`: a tensor (batch, channels, height, width), or
            a list of photos (files, Pillow images, arrays).
        ahead: How many batches are read before it is their turn, at least 1.
        **arguments: What `Adapter.refine` takes besides, such as `strategy=` or `steps=`.

    Yields:
        The result of each batch, in the order of the source.

    Raises:
        FeedbackAdapterError: What `Adapter.refine` raises, and what the source raises.
        OptionsError: `ahead` is less than 1.

    Example:
        >>> import torch, feedback_adapter as fa
        >>> adapter = fa.wrap(torch.nn.Linear(2, 3), labels=["dog", "snow", "ball"])
        >>> source = ((torch.ones(4, 2), fa.Labels({"dog": 1})) for _ in range(3))
        >>> [len(result) for result in fa.refine_batches(adapter, source, pivots="input")]
        [4, 4, 4]
    """

    def opened() -> Generator[tuple[Any, Evidence]]:
        device = next((p.device for p in adapter.model.parameters()), None)
        try:
            pairs = iter(source)
        except TypeError as error:
            raise InputError(f"source is a {type(source).__name__}: {_PAIRS}.") from error
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InputError(f"source gave a {type(pair).__name__}: {_PAIRS}.")
            images, evidence = pair
            if isinstance(images, list) and adapter.transform is not None:
                images = adapter.transform.open(*images).to(device)
            yield images, evidence

    for images, evidence in read_ahead(opened(), ahead):
        yield adapter.refine(images, evidence, **arguments)


def read_ahead(items: Iterable[ItemT], ahead: int = 2) -> Generator[ItemT]:
    """Go over anything, while a thread reads the next items.

    Args:
        items: What takes time to read. What it raises is raised here, after the items before.
        ahead: How many items are read before they are asked for, at least 1.

    Raises:
        OptionsError: `ahead` is less than 1.

    Example:
        >>> list(read_ahead(range(3)))
        [0, 1, 2]
    """
    if not isinstance(ahead, int) or ahead < 1:
        raise OptionsError(f"ahead={ahead!r} is out of range: it must be a whole number from 1 on.")
    read: queue.Queue[tuple[ItemT] | BaseException | None] = queue.Queue(ahead)
    enough = threading.Event()

    def put(item: tuple[ItemT] | BaseException | None) -> None:
        while not enough.is_set():
            with contextlib.suppress(queue.Full):
                read.put(item, timeout=0.1)
                return

    def fill() -> None:
        try:
            for item in items:
                put((item,))
                if enough.is_set():
                    return
            put(None)
        except BaseException as error:  # raised where the items are wanted
            put(error)

    thread = threading.Thread(target=fill, name="read_ahead", daemon=True)
    thread.start()
    try:
        while (item := read.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        enough.set()
        thread.join()
