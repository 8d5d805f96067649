"""Hierarchy: the coarse class is known, the fine class is predicted.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.2 and Table 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.methods import ALONE, REFERENCE, strategies_of, uses_of
from fa_evaluate.metrics import mean_of
from fa_evaluate.passes import Case, Images, both, refine_all
from fa_evaluate.request import Request
from fa_evaluate.rows import UNREFINED, Row
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import ModelError
from feedback_adapter.evidence.coarse import Coarse

__all__ = ["MASK", "Hierarchy", "measure"]

MASK = "masked softmax"
"""Name of the baseline: the unrefined model, with all classes outside the coarse one ruled out."""

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
        images: Images,
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
                default `"classes"`). Each is reported with what is known held fixed, and alone.
            checkpoint: Name to report.
            progress: Called with a note before each pass.

        Returns:
            Rows of the unrefined model, of the masked softmax, and of each method and the
            network alone that it gave: accuracy (0 to 100), its gain over the masked softmax,
            NLL (nats), the share of images whose class is less likely than by the masked
            softmax, and milliseconds per image.

        Raises:
            ModelError: No output has a hierarchy.
        """
        output = fine_output(adapter)
        spec = adapter.outputs[output]
        groups = spec.hierarchy or {}
        parent = {label: coarse for coarse, members in groups.items() for label in members}
        known = [parent[spec.labels[index]] for index in fine.tolist()]
        mask = Coarse(known, output=output).bind(adapter.outputs, len(known))
        cases = [_case(name, known, output, arguments) for name, arguments in methods.items()]
        before, answers = refine_all(adapter, images, cases, batch=self.batch, progress=progress)
        masked = mask.clamp(before.value)[output]
        found = {UNREFINED: before.value[output].log_softmax(1), MASK: masked.log_softmax(1)}
        seconds = {UNREFINED: before.seconds, MASK: before.seconds}
        for name, answer in zip(methods, answers, strict=True):
            after, alone = answer.value.log_softmax(2).unbind(1)
            found |= {name: after, name + ALONE: alone}
            seconds |= {name: answer.seconds, name + ALONE: answer.seconds}
        bootstrap = Bootstrap(len(images), self.samples, self.seed)
        base = _scores(found[MASK], fine, found[MASK], bootstrap)
        rows: list[Row] = []
        for name, value in found.items():
            scores = _scores(value, fine, found[MASK], bootstrap)
            ms = seconds[name] * 1e3 / len(images)
            draw = {
                "accuracy": scores["accuracy"],
                "accuracy gain over the masked softmax": scores["accuracy"] - base["accuracy"],
                **scores,
                "ms per image": bootstrap(lambda _, ms=ms: ms),
            }
            own = methods.get(name.removesuffix(ALONE))
            rows += bootstrap.rows(
                checkpoint, name, 0 if name == UNREFINED else 100, [draw],
                uses="weights" if own is None else uses_of(own, adapter),
                baseline=own is None or REFERENCE in name,
            )  # fmt: skip
        return rows


def _case(name: str, known: list[str], output: str, arguments: Mapping[str, Any]) -> Case:
    rest = dict(arguments)
    through = rest.pop("through", "classes")
    return Case(
        name,
        lambda rows: Coarse([known[i] for i in rows.tolist()], through=through, output=output),
        rest,
        read=lambda result: both(result, output),
    )


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
    chosen = strategies_of(request)
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
    log_p: Tensor, fine: Tensor, baseline: Tensor, bootstrap: Bootstrap
) -> dict[str, np.ndarray]:
    place = fine.unsqueeze(1)
    own, other = log_p.gather(1, place)[:, 0], baseline.gather(1, place)[:, 0]
    right = (log_p.argmax(1) == fine).numpy()
    return {
        "accuracy": bootstrap(mean_of(100.0 * right)),
        "NLL": bootstrap(mean_of(-own.clamp(min=_LEAST).numpy())),
        "images made worse": bootstrap(mean_of((own < other - 1e-6).numpy())),
    }
