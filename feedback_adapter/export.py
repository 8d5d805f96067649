"""A result in the forms that people go on with: rows, CSV, a data frame, written captions."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from feedback_adapter.errors import FeedbackAdapterError
from feedback_adapter.evidence.captions import write_captions
from feedback_adapter.networks.decoder import CaptionDecoder
from feedback_adapter.outputs import Outputs

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: tuple[str, ...] = (
    "image", "output", "label", "before", "after", "known", "present", "strategy",
)  # fmt: skip
"""Columns of a result's rows: one row per image and label."""


class MissingPandasError(FeedbackAdapterError, ImportError):
    """pandas isn't installed."""


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a heading, lines ending in a line feed."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def frame_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a pandas data frame. See `Refinement.to_frame`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingPandasError(
            "to_frame() needs pandas, which isn't installed: pip install pandas. "
            "to_csv() and to_dict() give the same rows without it."
        ) from error
    return pd.DataFrame(rows, columns=list(COLUMNS))


def captions_of(before: Outputs, after: Outputs, image: int) -> dict[str, dict[str, str]]:
    """The captions that a model writes of one image, `{output: {"before": ..., "after": ...}}`.

    Empty for models that write none.
    """
    row = torch.tensor([image], device="cpu")
    writers = [n for n, s in before.specs.items() if isinstance(s.decoder, CaptionDecoder)]
    return {
        name: {
            when: write_captions(outputs.take(row), output=name)[0]
            for when, outputs in (("before", before), ("after", after))
        }
        for name in writers
    }
