"""Offsets: moving predictions by whole cells, delta in the paper."""

import torch
from torch import Tensor


def window(reach: int) -> list[tuple[int, int]]:
    """All offsets (down, right) of at most `reach` cells, the middle one included."""
    steps = range(-reach, reach + 1)
    return [(down, right) for down in steps for right in steps]


def shift(cells: Tensor, down: int, right: int, fill: float) -> Tensor:
    """Move the last two dimensions by whole cells; what comes in from outside is `fill`."""
    if down == right == 0:
        return cells
    height, width = cells.shape[-2:]
    moved = torch.full_like(cells, fill)
    to_rows, from_rows = _ranges(down, height)
    to_columns, from_columns = _ranges(right, width)
    moved[..., to_rows, to_columns] = cells[..., from_rows, from_columns]
    return moved


def _ranges(step: int, size: int) -> tuple[slice, slice]:
    kept = max(0, size - abs(step))
    if step >= 0:
        return slice(size - kept, size), slice(0, kept)
    return slice(0, kept), slice(size - kept, size)
