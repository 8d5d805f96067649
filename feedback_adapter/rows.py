"""Which images of a batch: every `take(rows)` reads its indices here."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from feedback_adapter.errors import InputError


def indices(rows: Any, count: int | None = None) -> Tensor:
    """The indices of some images, as a tensor (k,) of whole numbers.

    Args:
        rows: Indices in any order, which may repeat: a tensor, an array, a list, a range; or
            True and False for each image; or a slice. Negative ones count from the end.
        count: How many images there are, where that is known.

    Raises:
        InputError: Something else, or an image that isn't there.

    Example:
        >>> indices([2, 0], 3), indices([True, False, True], 3)
        (tensor([2, 0]), tensor([0, 2]))
    """
    try:
        some: Any = range(count)[rows] if isinstance(rows, slice) and count is not None else rows
        found = some if isinstance(some, Tensor) else torch.tensor(list(some), device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{_ASKED}, not {rows!r:.80}.") from error
    if not found.numel() and not isinstance(rows, Tensor):
        found = found.long()
    if found.dtype == torch.bool and found.ndim == 1 and count in (None, len(found)):
        found = found.nonzero()[:, 0]
    if found.ndim != 1 or found.dtype not in _WHOLE:
        raise InputError(f"{_ASKED}, not {tuple(found.shape)} of {found.dtype}.")
    if count is not None and len(found):
        least, most = (int(end) for end in found.aminmax())
        if least < -count or most >= count:
            wrong = most if most >= count else least
            raise InputError(f"There is no image {wrong}: the batch has {count}, from 0 on.")
    return found.long()


def index_of(image: Any, count: int) -> int:
    """The index of one image, which must be there. Negative ones count from the end."""
    try:
        index = operator.index(image)
    except TypeError as error:
        raise InputError(f"image={image!r:.80} must be a whole number.") from error
    if not -count <= index < count:
        raise InputError(f"There is no image {index}: the batch has {count}, from 0 on.")
    return index


_ASKED = "Say which images by their indices, such as [0, 2], by a slice, or by True and False"
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
