"""How long each strategy takes to get most of what it can gain: seconds, not steps.

On the dev split of a zoo checkpoint, with half of the labels known and the other half scored (the
partial-labels protocol). Every batch is prepared once (`Adapter.prepare`), so that times are those
of refining alone. Methods take turns batch by batch; times are medians over batches.

    python efficiency.py --data FOLDER --checkpoint caption-words-lite0 --pivot conv_head

Rows are added to ../results/efficiency.json, or replaced there.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import feedback_adapter as fa
from fa_evaluate.metrics import mean_average_precision
from fa_evaluate.protocols.partial_labels import PartialLabels
from fa_evaluate.request import Request
from feedback_adapter.batches import split

RESULTS = Path(__file__).parents[1] / "results"
STOPS: dict[str, Any] = {"patience": None, "keep": "last"}  # every step is taken, and scored
METHODS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "residual, gradient": {"solver": "gradient", "step_size": 10.0, "steps": 10},
    "residual, Adam": {"solver": "adam", "step_size": 0.01, "steps": 10},
    "residual, Adam, 3x": {"solver": "adam", "step_size": 0.03, "steps": 10},
    "residual, L-BFGS": {"solver": "lbfgs", "step_size": 1.0, "steps": 10},
    "layerwise, gradient": {
        "strategy": "layerwise", "solver": "gradient", "step_size": 10.0, "steps": 10,
    },
    "newton": {"strategy": "newton", "steps": 3},
}  # fmt: skip
BATCH = 64
FOLDERS = {"caption-words-lite0": "flickr8k", "coco80-lite0": "coco6k"}


def steps_enough(gained: list[float]) -> int:
    """The fewest steps that gain 95% of the most, which is below 0 where nothing is gained."""
    least = max(gained) - 0.05 * abs(max(gained))
    return next(i + 1 for i, gain in enumerate(gained) if gain >= least)


def main(
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")],
    checkpoint: str = "caption-words-lite0",
    pivot: Annotated[str, typer.Option(help="Site of the pivot.")] = "conv_head",
    images: Annotated[int, typer.Option(help="The first so many of dev; 0: all.")] = 0,
    method: Annotated[list[str] | None, typer.Option(help="Some of the methods.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "efficiency.json",
) -> None:
    """Run every method, then time those steps that matter."""
    request = Request.of(checkpoint, data / FOLDERS[checkpoint], split="dev", limit=images or None)
    adapter, labelled = request.adapter, request.labelled()
    photos, truth = request.photos(labelled), torch.from_numpy(labelled.targets)
    protocol = PartialLabels(known=[100])
    unknown = protocol.halves(truth.shape[1])[1]
    known = torch.from_numpy(next(iter(protocol.masks(truth.shape[1], 100))))
    parts = split(len(photos), BATCH)
    prepared = [adapter.prepare(photos[rows], pivots=pivot) for rows in parts]
    tuned = {adapter.defaults.strategy: adapter.defaults.options, **adapter.defaults.others}
    shipped = {"strategy": "residual", **STOPS, **tuned["residual"]}
    methods: dict[str, dict[str, Any]] = {}
    for name in method or METHODS:
        own = METHODS[name]
        rest = {} if own.get("strategy") == "newton" else {"strategy": "residual", **STOPS}
        methods[name] = shipped | own if name == "shipped" else rest | own

    def refine(part: int, arguments: dict[str, Any]) -> tuple[fa.Refinement, float]:
        started = time.perf_counter()
        evidence = fa.Labels.from_tensors(truth[parts[part]], known)
        result = adapter.refine(prepared[part], evidence, **arguments)
        return result, (time.perf_counter() - started) * 1e3 / len(parts[part])

    def score(logits: torch.Tensor) -> float:
        return mean_average_precision(logits[:, unknown].numpy(), labelled.targets[:, unknown])

    unrefined = score(torch.cat([kept.unrefined(adapter.read)["output"] for kept in prepared]))
    gains: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    for name, arguments in methods.items():
        results = [refine(part, {**arguments, "trace": True})[0] for part in range(len(parts))]
        trace = torch.cat([r.trace["output"] for r in results if r.trace], 1)
        gains[name] = [round(score(logits) - unrefined, 3) for logits in trace[1:]]
        losses[name] = torch.cat([r.losses for r in results], 1).mean(1).tolist()
        print(name, gains[name], [round(loss, 2) for loss in losses[name]], flush=True)
    aim = 0.95 * max(gains.get("shipped", [0.0]))
    wanted: dict[tuple[str, int], list[float]] = {}
    for name, gained in gains.items():
        reached = [i + 1 for i, gain in enumerate(gained) if aim > 0 and gain >= aim]
        wanted |= {(name, steps): [] for steps in (steps_enough(gained), *reached[:1])}
    for part in range(min(6, len(parts))):
        for (name, steps), times in wanted.items():
            times.append(refine(part, {**methods[name], "steps": steps})[1])
    rows = json.loads(out.read_text())["rows"] if out.is_file() else []
    place = {"checkpoint": checkpoint, "pivot": pivot}
    rows = [r for r in rows if not (place.items() <= r.items() and r["method"] in methods)]
    for name, gained in gains.items():
        enough = steps_enough(gained)
        reached = next((i + 1 for i, gain in enumerate(gained) if 0 < aim <= gain), None)
        rows.append(
            {
                **place, "method": name, "images": len(photos),
                "unrefined_map": round(unrefined, 3),
                "gain": max(gained), "steps_to_95": enough,
                "ms_to_95": round(float(np.median(wanted[name, enough])), 2),
                "steps_to_shipped": reached,
                "ms_to_shipped": round(float(np.median(wanted[name, reached])), 2)
                if reached else None,
                "gains": gained, "losses": [round(loss, 3) for loss in losses[name]],
                "options": {k: v for k, v in methods[name].items() if k not in STOPS},
            }
        )  # fmt: skip
    content = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "split": "dev", "batch": BATCH, "rows": rows,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n")
    print(table([row for row in rows if place.items() <= row.items()]))


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each method."""
    lines = [
        "| checkpoint, pivot | method | best gain | steps to 95% | ms | to shipped's 95% | ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        there = ("-", "-") if r["ms_to_shipped"] is None else (
            r["steps_to_shipped"], r["ms_to_shipped"],
        )  # fmt: skip
        lines.append(
            f"| {r['checkpoint']}, {r['pivot']} | {r['method']} | {r['gain']:+.2f} | "
            f"{r['steps_to_95']} | {r['ms_to_95']} | {there[0]} | {there[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
