"""What users give, checked: one function for each kind of argument."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError, did_you_mean
from feedback_adapter.outputs import Output, Outputs


def short(value: Any) -> str:
    """What a value looks like in a message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:70]}... ({len(text)} characters)"


def plain(value: Any) -> Any:
    """Make lists of arrays, tensors and columns of tables, where NaN means `None`.

    What holds no numbers, such as a tensor on the device `meta`, is refused.
    """
    if not hasattr(value, "tolist"):
        return value
    try:
        return _without_nan(value.tolist())
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise EvidenceError(f"A {type(value).__name__} can't be read: {error}") from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    missing = isinstance(value, float) and math.isnan(value)
    return None if missing or type(value).__name__ in ("NAType", "NaTType") else value


def is_texts(value: Any) -> bool:
    """Whether it is a string, or a list or tuple of them."""
    return isinstance(value, str) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    )


def as_tensor(value: Any, what: str) -> Tensor:
    """A tensor, an array or lists of numbers as a dense tensor on the CPU.

    What makes none is refused: `what`, with `{}` for the value, begins that sentence.
    """
    try:
        own = isinstance(value, Tensor)
        tensor = value.detach().cpu() if own else torch.as_tensor(value, device="cpu")
        if tensor.is_complex() or tensor.is_quantized:
            raise TypeError(f"its type is {tensor.dtype}")
        return tensor.to_dense()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise EvidenceError(f"{what.format(short(value))} makes no tensor: {error}") from error


def unit(value: Any, what: str) -> float:
    """A number from 0 to 1; anything else is refused as `what` it was to be."""
    value = plain(value)
    number = cast("float", value) if isinstance(value, numbers.Real) else math.nan
    if 0 <= number <= 1:
        return float(number)
    if " " not in what:
        raise EvidenceError(f"{what}={short(value)} must be a number from 0 to 1.")
    said = float(number) if abs(number) < 1e9 else short(value)
    means = " (absent) to 1 (present)" if "value" in what else " to 1"
    raise EvidenceError(f"{what} is {said}: it must be a number from 0{means}.")


def per_image(value: Any, what: str, possible: str, fits: Callable[[Any], bool] = is_texts) -> Any:
    """One thing for all images, or a list with one for each image or `None`.

    Args:
        value: What was given.
        what: What it is, as the beginning of a sentence: "The text".
        possible: What it may be, as the end of one: "a string".
        fits: Whether a thing can be what is known of an image.

    Returns:
        The thing, or a list of them; arrays and columns are lists then, with `None` for NaN.

    Raises:
        EvidenceError: Something doesn't fit; the message says which image's.
    """
    value = plain(value)
    if fits(value):
        return value
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise EvidenceError(
            f"{what} is {short(value)}: it must be {possible}, or a list with one per image."
        )
    items: list[Any] = list(value)
    for image, item in enumerate(items):
        if item is not None and not fits(item):
            raise EvidenceError(
                f"{what} of image {image} is {short(item)}: it must be {possible}, or None."
            )
    return items


def repeated(value: Any, batch: int, what: str) -> list[Any]:
    """One for each image of a batch, from one for all or a list of that length."""
    if not isinstance(value, list):
        return [value] * batch
    if len(value) != batch:
        raise EvidenceError(
            f"{what} are given for {len(value)} images, but the batch has {batch}. Give one per "
            "image (None where nothing is known), or one for all."
        )
    return value


def output_of(
    specs: Mapping[str, Output], output: Any, fits: Sequence[str], who: str, needs: str
) -> str:
    """Which output evidence is about: the one that is named, or the only one that fits.

    Messages say who needs one ("Text") and what it must be ("a caption's").

    Raises:
        EvidenceError: There is no such output, or it isn't clear which.
    """
    if output is not None and not (isinstance(output, str) and output in specs):
        raise EvidenceError(f"There is no output {short(output)}. {did_you_mean(output, specs)}")
    if output is not None and output not in fits:
        raise EvidenceError(f"No output {output!r} is {needs}. {did_you_mean(output, fits)}")
    if output is None and not fits:
        raise EvidenceError(f"{who} needs an output that is {needs}: none of {list(specs)} is.")
    if output is None and len(fits) > 1:
        raise EvidenceError(f"Say which output {who} is about, with output= one of {list(fits)}.")
    return fits[0] if output is None else str(output)


def everywhere(outputs: Outputs, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The answer of `Evidence.known`: masks of some outputs, and nothing known of the others."""
    return {
        name: known[name].to(value.device)
        if name in known
        else torch.zeros_like(value, dtype=torch.bool)
        for name, value in outputs.items()
    }
