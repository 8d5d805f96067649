"""Hierarchy: the coarse class is known, the fine class is predicted.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.2 and Table 1.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import ModelError
from feedback_adapter.evidence.coarse import Coarse
from feedback_adapter.outputs import Outputs

__all__ = ["HierarchyRow", "measure_hierarchy"]


@dataclasses.dataclass(frozen=True)
class HierarchyRow:
    """What one method scores.

    Args:
        method: `"none"`: the plain model; `"masked softmax"`: its classes outside the
            coarse class ruled out; others: feedback, then the same mask.
        accuracy: Share of images whose fine class ranks first, 0 to 100.
        error: Standard error of the accuracy over images.
        nll: -log of the fine class's probability, mean, in nats.
        worse: Share of images where it is less likely than by the masked softmax, 0 to 1.
        ms_per_image: Milliseconds.
    """

    method: str
    accuracy: float
    error: float
    nll: float
    worse: float
    ms_per_image: float


def measure_hierarchy(
    adapter: Adapter,
    images: Tensor,
    fine: Tensor,
    methods: Mapping[str, Mapping[str, Any]],
    *,
    batch: int = 64,
    progress: Callable[[str], None] = lambda _: None,
) -> list[HierarchyRow]:
    """Measure methods side by side, the true coarse class of every image known.

    Args:
        adapter: A model with a multiclass output that has a hierarchy.
        images: (N, channels, height, width), as the model takes them.
        fine: (N,) int64, the true fine class.
        methods: For each name `through` (see `Coarse`; by default `"classes"`) and
            arguments of `Adapter.refine`.
        batch: Images at a time.
        progress: Called with a note before each pass.

    Raises:
        ModelError: No output has a hierarchy.
    """
    found = [name for name, spec in adapter.outputs.items() if spec.hierarchy is not None]
    if not found:
        raise ModelError(f"No output of {list(adapter.outputs)} has a hierarchy to evaluate with.")
    output = found[0]
    spec = adapter.outputs[output]
    parent = {
        label: coarse for coarse, members in (spec.hierarchy or {}).items() for label in members
    }
    classes = [parent[spec.labels[index]] for index in fine.tolist()]
    logits: dict[str, list[Tensor]] = {}
    seconds: dict[str, float] = {}

    def add(name: str, value: Tensor, started: float) -> None:
        logits.setdefault(name, []).append(value.log_softmax(1))
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started

    for rows in torch.arange(len(images)).split(batch):
        progress(f"images {int(rows[0])} to {int(rows[-1])}")
        told = [classes[index] for index in rows.tolist()]
        mask = Coarse(told, output=output)
        started = time.perf_counter()
        plain = adapter.predict(images[rows])
        values = plain if isinstance(plain, dict) else {output: plain}
        before = Outputs(values, adapter.outputs)
        add("none", before[output], started)
        add("masked softmax", mask.clamp(before)[output], started)
        for name, arguments in methods.items():
            rest = dict(arguments)
            through = rest.pop("through", "classes")
            started = time.perf_counter()
            evidence = Coarse(told, through=through, output=output)
            result = adapter.refine(images[rows], evidence, **rest)
            add(name, mask.clamp(result.outputs_after)[output], started)
    base = _right(torch.cat(logits["masked softmax"]), fine)
    return [
        _row(name, torch.cat(parts), fine, base, seconds[name]) for name, parts in logits.items()
    ]


def _right(log_p: Tensor, fine: Tensor) -> Tensor:
    return log_p.gather(1, fine.unsqueeze(1))[:, 0]


def _row(name: str, log_p: Tensor, fine: Tensor, base: Tensor, seconds: float) -> HierarchyRow:
    hits: Sequence[float] = (log_p.argmax(1) == fine).float().tolist()
    share = sum(hits) / len(hits)
    own = _right(log_p, fine)
    return HierarchyRow(
        method=name,
        accuracy=100 * share,
        error=100 * (share * (1 - share) / len(hits)) ** 0.5,
        nll=-float(own.clamp(min=-30).mean()),
        worse=float((own < base - 1e-6).float().mean()),
        ms_per_image=seconds * 1e3 / len(hits),
    )
