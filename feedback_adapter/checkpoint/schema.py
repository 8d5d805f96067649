"""What each key of a checkpoint's config may be, checked before anything is done with it."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, get_args

from feedback_adapter.errors import CheckpointError, did_you_mean
from feedback_adapter.outputs import Kind

_WIDEST = 8_192
"""Pixels: a picture of so many squared takes 0.8 GB."""

DTYPES = ("as saved", "float16")
"""How weights are stored: each tensor in the model's own dtype, or all of them as float16."""


def _text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_number(item) for item in value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _of_each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether something is an object, each value of which fits."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_objects = _of_each(_object)


def _calibration(value: Any) -> bool:
    return _object(value) and set(value) == {"scale", "bias"} and all(map(_number, value.values()))


def _size(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(item) is int for item in value)
    return whole and len(value) == 2 and all(0 < item <= _WIDEST for item in value)


def is_plain_file(value: Any) -> bool:
    """Whether this names a safetensors file inside the checkpoint's folder, and nothing else."""
    return (
        isinstance(value, str)
        and value.endswith(".safetensors")
        and "\0" not in value
        and PurePosixPath(value).name == value
        and PureWindowsPath(value).name == value
    )


def _sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


@dataclasses.dataclass(frozen=True)
class _Rule:
    fits: Callable[[Any], bool]
    what: str
    required: bool = False
    null: bool = False


_FILE = {"sha256": _Rule(_sha256, "64 hexadecimal digits", True)}
_OLD_FILE = {
    "file": _Rule(is_plain_file, "the plain name of a .safetensors file in the folder", True),
    **_FILE,
}
_CONFIG = {
    "format": _Rule(lambda value: type(value) is int, "a whole number", True),
    "name": _Rule(_text, "text"),
    "summary": _Rule(_text, "text"),
    "architecture": _Rule(_object, "an object or null", True, null=True),
    "outputs": _Rule(_objects, "an object with an object for each output", True),
    "transform": _Rule(_object, "an object or null", null=True),
    "weights": _Rule(_object, "an object", True),
    "refine": _Rule(_object, "an object or null", null=True),
    "returned": _Rule(_object, "an object"),
    "data": _Rule(_object, "an object"),
    "training": _Rule(_object, "an object"),
    "metrics": _Rule(_object, "an object"),
    "license": _Rule(_text, "text"),
}
_STATISTICS = {"statistics": _Rule(_object, "an object")}
_OLD_STATISTICS = {"priors": _Rule(_objects, "an object with an object for each output")}
_ARCHITECTURE = {
    "library": _Rule(_text, "text", True),
    "model": _Rule(_text, "text", True),
    "kwargs": _Rule(_object, "an object"),
}
_OUTPUT = {
    "kind": _Rule(lambda value: value in get_args(Kind), f"one of {get_args(Kind)}", True),
    "labels": _Rule(_texts, "a list of text", True),
    "select": _Rule(_text, "text or null", null=True),
    "hierarchy": _Rule(
        _of_each(_texts),
        "an object with a list of labels for each coarse class, or null",
        null=True,
    ),
    "decoder": _Rule(_text, "text or null", null=True),
    "exclusive": _Rule(lambda value: isinstance(value, bool), "true, false or null", null=True),
}
_TRANSFORM = {
    "size": _Rule(_size, "two whole numbers from 1 to 8,192, height and width"),
    "interpolation": _Rule(_text, "text"),
    "mean": _Rule(_numbers, "a list of numbers"),
    "std": _Rule(_numbers, "a list of numbers"),
}
_WEIGHTS = {
    "dtype": _Rule(lambda value: value in DTYPES, f"one of {DTYPES}", True),
    "buffers": _Rule(
        _of_each(_text), "an object with the dtype of each buffer that the weights don't hold"
    ),
    "sparse": _Rule(
        _objects, "an object with the layout and the size of each sparse tensor of the weights"
    ),
    "extra": _Rule(_object, "an object with the extra state of modules that is no tensor"),
}
LARGEST_IMAGE = 1_024
"""Pixels: a larger picture isn't made to compare models."""
_RETURNED = {
    "size": _Rule(
        lambda value: _size(value) and max(value) <= LARGEST_IMAGE,
        "two whole numbers from 1 to 1,024, height and width",
        True,
    ),
    "device": _Rule(_text, "text", True),
    "values": _Rule(
        lambda value: (
            isinstance(value, dict)
            and all(_numbers(numbers) and len(numbers) <= 64 for numbers in value.values())
        ),
        "an object with some numbers of each output, at most 64",
        True,
    ),
}
_REFINE = {
    "strategy": _Rule(_text, "text or null", null=True),
    "pivots": _Rule(lambda value: value == "auto" or _texts(value), "'auto' or a list of text"),
    "options": _Rule(_object, "an object"),
    "others": _Rule(_objects, "an object with an object of options for each strategy"),
    "reference": _Rule(_objects, "an object with an object of options for each strategy"),
    "calibration": _Rule(
        _of_each(_calibration), "an object with the scale and the bias of each output"
    ),
}


def check_config(config: Mapping[str, Any], file: Any) -> None:
    """Refuse a config in which a key is missing, unknown, or holds something else than it may."""
    missing: list[str] = []
    old = config.get("format") == 1
    _check(config, {**_CONFIG, **(_OLD_STATISTICS if old else _STATISTICS)}, "", file, missing)
    parts: list[tuple[Any, Mapping[str, _Rule], str]] = [
        (config.get("architecture"), _ARCHITECTURE, "architecture."),
        (config.get("transform"), _TRANSFORM, "transform."),
        (config.get("weights"), {**(_OLD_FILE if old else _FILE), **_WEIGHTS}, "weights."),
        (config.get("statistics"), _FILE, "statistics."),
        (config.get("refine"), _REFINE, "refine."),
        (config.get("returned"), _RETURNED, "returned."),
        *((part, _OUTPUT, f"outputs.{key}.") for key, part in config.get("outputs", {}).items()),
        *((part, _OLD_FILE, f"priors.{key}.") for key, part in config.get("priors", {}).items()),
    ]
    for part, rules, where in parts:
        if part is not None:
            _check(part, rules, where, file, missing)
    if missing:
        raise CheckpointError(f"{file} lacks {missing}.")
    if not config["outputs"]:
        raise CheckpointError(f"{file}: 'outputs' is empty: it must name at least one output.")
    strangers = [name for name in config.get("priors", {}) if name not in config["outputs"]]
    if strangers:
        raise CheckpointError(
            f"{file}: 'priors' names {strangers[0]!r}, which is no output. "
            f"{did_you_mean(strangers[0], config['outputs'])}"
        )


def _check(
    part: Mapping[str, Any], rules: Mapping[str, _Rule], where: str, file: Any, missing: list[str]
) -> None:
    for key, value in part.items():
        if key not in rules:
            raise CheckpointError(
                f"{file}: {shortly(where + key)} is not a key of a checkpoint. "
                f"{did_you_mean(key, rules)}"
            )
        rule = rules[key]
        if value is None and rule.null:
            continue
        if not rule.fits(value):
            raise CheckpointError(
                f"{file}: {where + key!r} is {shortly(value)}: it must be {rule.what}."
            )
    missing += [where + key for key, rule in rules.items() if rule.required and key not in part]


def only_data(value: Any, where: str) -> Any:
    """The same value, made of what JSON can hold; tuples become lists, numpy scalars numbers.

    Anything else, such as an object of Python, is refused: `where` says what it is.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise CheckpointError(f"{where} is {value}: a checkpoint holds finite numbers only.")
        return value
    if isinstance(value, Mapping):
        return {str(key): only_data(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [only_data(item, where) for item in value]
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return only_data(value.item(), where)
    raise CheckpointError(
        f"{where} is a {type(value).__name__}: a checkpoint holds only text, numbers, true, false, "
        "null, and lists and objects of them. Name it instead, as solver='lbfgs'."
    )


def shortly(value: Any) -> str:
    """A value as it is given in messages."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
