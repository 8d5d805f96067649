"""One loop over a data set: some images at a time, and the results joined.

Everything that goes over more images than fit into memory at once uses this: predicting,
refining, evaluating, fitting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor

from feedback_adapter.errors import InputError, OptionsError

__all__ = ["Joinable", "in_batches", "join", "split"]


class Joinable(Protocol):
    """What holds something per image and can be joined: `Outputs` and `Refinement` are such."""

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The parts as one, in their order."""
        ...


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
    if size < 1:
        raise OptionsError(f"batch={size!r} is out of range: it must be a whole number from 1 on.")
    return [rows for rows in torch.arange(count, device=device).split(size) if len(rows)]


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
