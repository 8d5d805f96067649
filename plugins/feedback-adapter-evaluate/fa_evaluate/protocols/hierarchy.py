"""Hierarchy: the coarse class is known, the fine class is predicted.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.2 and Table 1.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.methods import REFERENCES, strategies_of, tier_of
from fa_evaluate.metrics import mean_of
from fa_evaluate.request import Request
from fa_evaluate.rows import PLAIN, Row
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import ModelError
from feedback_adapter.evidence.coarse import Coarse
from feedback_adapter.outputs import Outputs

__all__ = ["MASK", "Hierarchy", "measure"]

MASK = "masked softmax"
"""Name of the baseline: the plain model, with the classes outside the coarse class ruled out."""

_LEAST = -30.0
"""A class that a mask rules out is this likely, in nats: a wrong mask costs no more."""


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """The protocol: the true coarse class of every image is known.

    Args:
        batch: Images at a time.
        seed: Of the resamples.
        samples: Resamples of the images for the intervals.
    """

    batch: int = 64
    seed: int = 0
    samples: int = 1000

    def run(
        self,
        adapter: Adapter,
        images: Tensor,
        fine: Tensor,
        methods: Mapping[str, Mapping[str, Any]],
        *,
        checkpoint: str = "model",
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Row]:
        """Measure methods side by side.

        Args:
            adapter: A model with a multiclass output that has a hierarchy.
            images: (N, channels, height, width), as the model takes them.
            fine: (N,) int64, the true fine class.
            methods: Arguments of `Adapter.refine` by name, and `through` (see `Coarse`; by
                default `"classes"`). Each is reported as it is, and masked.
            checkpoint: Name to report.
            progress: Called with a note before each pass.

        Returns:
            Rows of the plain model, of the masked softmax, and of each method alone and
            masked: accuracy (0 to 100), its gain over the masked softmax, NLL (nats), the
            share of images whose class is less likely than by the masked softmax, and
            milliseconds per image.

        Raises:
            ModelError: No output has a hierarchy.
        """
        output = fine_output(adapter)
        spec = adapter.outputs[output]
        groups = spec.hierarchy or {}
        parent = {label: coarse for coarse, members in groups.items() for label in members}
        classes = [parent[spec.labels[index]] for index in fine.tolist()]
        found: dict[str, list[Tensor]] = {}
        clocks: dict[str, float] = {}

        def add(name: str, logits: Tensor, started: float) -> None:
            found.setdefault(name, []).append(logits.log_softmax(1))
            clocks[name] = clocks.get(name, 0.0) + time.perf_counter() - started

        for rows in torch.arange(len(images)).split(self.batch):
            told = [classes[index] for index in rows.tolist()]
            mask = Coarse(told, output=output)
            progress(f"{PLAIN}, images {int(rows[0])} to {int(rows[-1])}")
            started = time.perf_counter()
            plain = adapter.predict(images[rows])
            values = plain if isinstance(plain, dict) else {output: plain}
            before = Outputs(values, adapter.outputs)
            add(PLAIN, before[output], started)
            add(MASK, mask.clamp(before)[output], started)
            for name, arguments in methods.items():
                progress(f"{name}, images {int(rows[0])} to {int(rows[-1])}")
                rest = dict(arguments)
                evidence = Coarse(told, through=rest.pop("through", "classes"), output=output)
                started = time.perf_counter()
                after = adapter.refine(images[rows], evidence, **rest).outputs_after
                add(name, after[output], started)
                add(f"{name}, masked", mask.clamp(after)[output], started)
        bootstrap = Bootstrap(len(images), self.samples, self.seed)
        log_p = {name: torch.cat(parts) for name, parts in found.items()}
        base = _scores(log_p[MASK], fine, log_p[MASK], bootstrap)
        result: list[Row] = []
        for name, value in log_p.items():
            scores = _scores(value, fine, log_p[MASK], bootstrap)
            ms = clocks[name] * 1e3 / len(images)
            draw = {
                "accuracy": scores["accuracy"],
                "accuracy gain over the masked softmax": scores["accuracy"] - base["accuracy"],
                **scores,
                "ms per image": bootstrap(lambda _, ms=ms: ms),
            }
            own = methods.get(name.removesuffix(", masked"), {})
            result += bootstrap.rows(
                checkpoint, name, 0 if name == PLAIN else 100, [draw], tier=tier_of(own),
                baseline=name in (PLAIN, MASK) or "reference" in name,
            )  # fmt: skip
        return result


def fine_output(adapter: Adapter) -> str:
    """The output with the fine classes.

    Raises:
        ModelError: No output has a hierarchy.
    """
    found = [name for name, spec in adapter.outputs.items() if spec.hierarchy is not None]
    if not found:
        raise ModelError(f"No output of {list(adapter.outputs)} has a hierarchy to evaluate with.")
    return found[0]


def measure(request: Request) -> list[Row]:
    """The protocol as `feedback-adapter evaluate` runs it: through the classes and the head."""
    adapter = request.adapter
    labelled = request.labelled(fine_output(adapter))
    fine = torch.from_numpy(labelled.targets.argmax(1))
    names = request.strategies or ("residual", *REFERENCES)
    chosen = strategies_of(dataclasses.replace(request, strategies=names))
    methods: dict[str, dict[str, Any]] = {}
    for name, arguments in chosen.items():
        methods[name] = arguments
        if len(adapter.outputs) > 1:
            methods[f"{name} through the head"] = {**arguments, "through": "head"}
    return Hierarchy(batch=request.batch, seed=request.seed).run(
        adapter, request.photos(labelled), fine, methods,
        checkpoint=request.checkpoint, progress=request.progress,
    )  # fmt: skip


def _scores(
    log_p: Tensor, fine: Tensor, rival: Tensor, bootstrap: Bootstrap
) -> dict[str, np.ndarray]:
    place = fine.unsqueeze(1)
    own, other = log_p.gather(1, place)[:, 0], rival.gather(1, place)[:, 0]
    right = (log_p.argmax(1) == fine).numpy()
    return {
        "accuracy": bootstrap(mean_of(100.0 * right)),
        "NLL": bootstrap(mean_of(-own.clamp(min=_LEAST).numpy())),
        "images made worse": bootstrap(mean_of((own < other - 1e-6).numpy())),
    }
