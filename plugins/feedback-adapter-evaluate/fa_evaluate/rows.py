"""One figure of a results file, and the file: what every protocol gives."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from fa_evaluate.data.files import read_json
from feedback_adapter.errors import DataError

__all__ = ["CALIBRATED", "UNREFINED", "Row", "read_rows", "results", "write_rows"]

UNREFINED = "unrefined"
"""Name of the method that uses no evidence: the model as it is."""

CALIBRATED = "unrefined, calibrated"
"""The same with the scale and the bias that `Adapter.calibrate` found."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of one method.

    Args:
        checkpoint: Name of the checkpoint.
        method: `"unrefined"` is the model without evidence; the published forms have `reference`
            in their name.
        uses: What the method uses beside the evidence: `"weights"` are the model's alone,
            `"statistics"` also those of a training set, `"trained"` a module that was trained.
        baseline: Whether the method is there to be compared with, and isn't one of this library's.
        known: How much is known, in the protocol's own unit (percent, captions).
        metric: What `value` is, e.g. `"mAP"`.
        value: Mean over draws.
        sd: Standard deviation over draws (n - 1); 0 for one draw.
        low: Lower end of the 95% interval of `value`, by bootstrap over images. For a metric
            that is a difference to the unrefined model, such as `"mAP gain"`, both are measured
            on the same resampled images (a paired bootstrap).
        high: Its upper end.
        images: How many images were measured.
    """

    checkpoint: str
    method: str
    uses: str
    baseline: bool
    known: float
    metric: str
    value: float
    sd: float
    low: float
    high: float
    images: int


def results(rows: Iterable[Row], seeds: Sequence[int], **notes: Any) -> dict[str, Any]:
    """What a results file holds: `{"versions", "seeds", ..., "rows"}`.

    Args:
        rows: The figures.
        seeds: Of the draws.
        **notes: What else a reader should know, as JSON can hold it.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "seeds": list(seeds),
        **notes,
        "rows": [_rounded(row) for row in rows],
    }


def _rounded(row: Row) -> dict[str, Any]:
    items = dataclasses.asdict(row).items()
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in items}


def write_rows(file: str | Path, rows: Iterable[Row], seeds: Sequence[int], **notes: Any) -> Path:
    """Write a results file. See `results`."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results(rows, seeds, **notes), indent=1) + "\n")
    return path


def read_rows(file: str | Path) -> list[Row]:
    """The figures of a results file.

    Raises:
        DataError: It isn't there, or isn't a results file.
    """
    try:
        return [Row(**row) for row in read_json(Path(file), dict)["rows"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{str(file)!r} isn't a file of results: {error}") from error
