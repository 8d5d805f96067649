"""The rows of a shard, and the columns that they are written in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

import feedback_adapter as fa

__all__ = ["Results", "schema_of"]

_UNKNOWN = -1


def schema_of(outputs: Mapping[str, fa.Output]) -> pa.Schema:
    """The columns of a shard.

    Each label has three: its probability `before:LABEL` and `after:LABEL`, and `known:LABEL`,
    which is 1 if it was told that it is there, 0 if it was told that it isn't, and else null. Where
    the model has several outputs, labels are called `OUTPUT/LABEL`.
    """
    labels = [label for some in _columns(outputs).values() for label in some]
    kinds = (("before", pa.float32()), ("after", pa.float32()), ("known", pa.int8()))
    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(f"{part}:{label}", kind) for part, kind in kinds for label in labels]
    fields += [
        pa.field("strategy", pa.string()),
        pa.field("steps", pa.int32()),
        pa.field("loss", pa.float32()),
        pa.field("error", pa.string()),
    ]
    named = {name: list(spec.labels) for name, spec in outputs.items()}
    return pa.schema(fields, {b"labels": json.dumps(named).encode()})


class Results:
    """What came of each row of a shard: a refinement, or an error.

    Args:
        ids: What the rows are called.
        outputs: The model's outputs of labels.
    """

    def __init__(self, ids: Sequence[str], outputs: Mapping[str, fa.Output]) -> None:
        self.ids, self.outputs = ids, outputs
        self.errors: list[str | None] = [None] * len(ids)
        self.strategies: list[str | None] = [None] * len(ids)
        self._numbers = {
            "steps": np.zeros(len(ids), np.int32),
            "loss": np.zeros(len(ids), np.float32),
        }
        labels = sum(len(spec.labels) for spec in outputs.values())
        self._labels = {
            "before": np.zeros((labels, len(ids)), np.float32),
            "after": np.zeros((labels, len(ids)), np.float32),
            "known": np.full((labels, len(ids)), _UNKNOWN, np.int8),
        }

    @property
    def failed(self) -> int:
        """How many rows have an error."""
        return sum(error is not None for error in self.errors)

    def add(self, places: Sequence[int], result: fa.Refinement) -> None:
        """Put the results of some rows in their places."""
        before, after = result.outputs_before.probabilities(), result.outputs_after.probabilities()
        start = 0
        for name, spec in self.outputs.items():
            rows = slice(start, start := start + len(spec.labels))
            told = np.where(result.known[name].cpu(), result.present[name].cpu(), _UNKNOWN)
            self._labels["before"][rows, places] = before[name].float().cpu().numpy().T
            self._labels["after"][rows, places] = after[name].float().cpu().numpy().T
            self._labels["known"][rows, places] = told.T
        self._numbers["steps"][places] = result.steps.cpu().numpy()
        self._numbers["loss"][places] = result.loss.float().cpu().numpy()
        for place, strategy in zip(places, result.strategies, strict=True):
            self.strategies[place] = strategy

    def table(self) -> pa.Table:
        """All rows, in `schema_of`'s columns. A row with an error has nothing else."""
        schema = schema_of(self.outputs)
        bad = np.array([error is not None for error in self.errors], bool)
        arrays = [pa.array(self.ids, pa.string())]
        for values in self._labels.values():
            for row in values:
                missing = bad | (row == _UNKNOWN) if values.dtype == np.int8 else bad
                arrays.append(pa.array(row, mask=missing))
        arrays.append(pa.array(self.strategies, pa.string()))
        arrays += [pa.array(values, mask=bad) for values in self._numbers.values()]
        arrays.append(pa.array(self.errors, pa.string()))
        return pa.Table.from_arrays(arrays, schema=schema)


def _columns(outputs: Mapping[str, fa.Output]) -> dict[str, list[str]]:
    """What the labels of each output are called in columns."""
    several = len(outputs) > 1
    return {
        name: [f"{name}/{label}" if several else label for label in spec.labels]
        for name, spec in outputs.items()
    }
