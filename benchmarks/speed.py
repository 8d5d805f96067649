"""Time and memory of an iteration, against models cut by hand and two other ways: `make bench`.

One process, one thread, batches of 16. Each cell interleaves short runs of all ways; the ratios
are medians over the runs, of CPU seconds, which other programs on the machine disturb least.
Every way moves the same pivot by the same Adam, unit and evidence loss for the same steps:

ours
    `Descent` as `residual` and `layerwise` run it, images never leaving the batch.
limit
    What follows the pivot written down by hand, differentiated with respect to the pivot only.
hook
    The whole model runs again in every iteration, a hook puts the pivot in.
notebook
    As the published notebook: cut by hand, but with parameters that require gradients.

Peak memory is that of all tensors allocated from the images on (torch's profiler), set-up
included. Writes benchmarks/results/speed.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from handcut import CUTS, Cut
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.sites import Site, frozen
from feedback_adapter.strategies.base import Problem
from feedback_adapter.strategies.descent import Descent, DescentOptions
from feedback_adapter.strategies.loop import Stop, iterate
from feedback_adapter.strategies.solvers import Adam

RESULTS = Path(__file__).parent / "results" / "speed.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
BATCH, STEPS, STEP_SIZE, CLASSES = 16, 3, 0.01, 20
LABELS = [f"label{i}" for i in range(CLASSES)]
OPTIONS = DescentOptions(steps=STEPS, step_size=STEP_SIZE, patience=None)


class Cell:
    """One model, one pivot, one strategy: every way of running it."""

    def __init__(self, cut: Cut, site: str, strategy: str, model: nn.Module, images: Tensor):
        self.cut, self.site, self.strategy = cut, site, strategy
        self.model, self.images = model, images
        self.adapter = fa.wrap(model, labels=LABELS)
        target, known = torch.zeros(BATCH, CLASSES), torch.arange(CLASSES) < CLASSES // 2
        target[:, :5] = 1
        self.target, self.weight = target, known.float()
        self.evidence = fa.Labels.from_tensors(target, known).bind(self.adapter.outputs, BATCH)
        self.tail = cut.tail(model, site)
        self.module = model.get_submodule(site)
        kind = fa.LayerwiseOptions if strategy == "layerwise" else fa.ResidualOptions
        self.whole = kind(steps=STEPS, step_size=STEP_SIZE, patience=None)

    def loss(self, logits: Tensor) -> Tensor:
        """What `Labels` computes."""
        items = nn.functional.binary_cross_entropy_with_logits(
            logits, self.target, reduction="none"
        )
        return (items * self.weight).sum()

    def ours(self) -> Callable[[], object]:
        inputs = self.adapter._inputs(self.images)
        sites = (Site(self.site),)
        problem = Problem(self.model, inputs, self.evidence, sites, self.adapter.read)
        descent = Descent(problem, OPTIONS)
        start = descent.init()
        descent.forget()
        stop = Stop(OPTIONS.tolerance, OPTIONS.patience)
        return lambda: iterate(descent, start, OPTIONS.steps, stop=stop, keep=OPTIONS.keep)

    def of_prepared(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """Refining a prepared batch, and the steps of its tail alone, evaluated at the start."""
        prepared = self.adapter.prepare(self.images, pivots=self.site)
        told = fa.Labels.from_tensors(self.target, self.weight.bool())

        def refine() -> object:
            return self.adapter.refine(prepared, told, strategy=self.strategy, options=self.whole)

        def alone() -> object:
            problem = Problem(
                self.model, prepared.inputs, self.evidence, prepared.pivots, self.adapter.read,
                recorded=prepared.tail,
            )  # fmt: skip
            descent = Descent(problem, OPTIONS)
            stop = Stop(OPTIONS.tolerance, OPTIONS.patience)
            return iterate(descent, descent.init(), OPTIONS.steps, stop=stop, keep=OPTIONS.keep)

        return {"refine": lambda: refine, "alone": lambda: alone}

    def limit(self) -> Callable[[], object]:
        with torch.no_grad():
            activation = self.cut.head(self.model, self.site, self.images)
        return self._by_hand(activation, self.tail)

    def notebook(self) -> Callable[[], object]:
        run = self.limit()

        def trained() -> object:
            self.model.requires_grad_(True)
            try:
                return run()
            finally:
                self.model.requires_grad_(False)

        return trained

    def hook(self) -> Callable[[], object]:
        with torch.no_grad():
            activation = self.cut.head(self.model, self.site, self.images)

        def whole(moved: Tensor) -> Tensor:
            handle = self.module.register_forward_hook(lambda *_: moved)
            try:
                return self.model(self.images)
            finally:
                handle.remove()

        return self._by_hand(activation, whole)

    def _by_hand(
        self, activation: Tensor, tail: Callable[[Tensor], Tensor]
    ) -> Callable[[], object]:
        unit = activation.square().flatten(1).mean(1).sqrt()
        unit = unit.reshape(-1, *[1] * (activation.ndim - 1))
        state: dict = {}
        solver = Adam()
        layerwise = self.strategy == "layerwise"
        variable = activation if layerwise else torch.zeros_like(activation)

        def forward(grad: bool) -> tuple[Tensor, Tensor]:
            with torch.set_grad_enabled(grad):
                leaf = variable.requires_grad_(grad)
                moved = leaf if layerwise else torch.addcmul(activation, leaf, unit)
                return leaf, self.loss(tail(moved))

        first = forward(True)

        def run() -> Tensor:
            nonlocal variable, first
            leaf, loss = first
            first = None  # type: ignore[assignment]
            for step in range(1, STEPS + 1):
                if any(p.requires_grad for p in self.model.parameters()):
                    loss.backward()
                    gradient = leaf.grad
                    leaf.grad = None
                    self.model.zero_grad(set_to_none=True)
                else:
                    (gradient,) = torch.autograd.grad(loss, leaf)
                variable = leaf.detach()
                if layerwise:
                    gradient = gradient.mul_(unit)
                    variable.addcmul_(solver.step(state, gradient, STEP_SIZE), unit)
                else:
                    variable.add_(solver.step(state, gradient, STEP_SIZE))
                leaf, loss = forward(step < STEPS)
            return loss

        return run

    def ways(self) -> dict[str, Callable[[], Callable[[], object]]]:
        return {
            "ours": self.ours, "limit": self.limit, "hook": self.hook, "notebook": self.notebook,
        }  # fmt: skip


def seconds(way: Callable[[], Callable[[], object]]) -> float:
    """CPU seconds of one run of the steps, set-up excluded."""
    run = way()
    started = time.process_time()
    run()
    return time.process_time() - started


def peak(way: Callable[[], Callable[[], object]]) -> int:
    """Most bytes of tensors alive at once in set-up and steps."""
    gc.collect()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        way()()
    events = profile.profiler.kineto_results.events()
    alive = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


def measure(cell: Cell, repeats: int, slow_repeats: int) -> dict:
    """The ratios of one cell."""
    ways = cell.ways()
    times: dict[str, list[float]] = {name: [] for name in ways}
    with frozen(cell.model):
        for name in ways:
            seconds(ways[name])  # warm up
        for repeat in range(repeats):
            pair = ["ours", "limit"] if repeat % 2 else ["limit", "ours"]
            for name in [*pair, *(["hook", "notebook"] if repeat < slow_repeats else [])]:
                times[name].append(seconds(ways[name]))
        of_prepared = cell.of_prepared()
        whole: list[float] = []
        for repeat in range(repeats + 1):
            order = ["refine", "alone"] if repeat % 2 else ["alone", "refine"]
            taken = {name: seconds(of_prepared[name]) for name in order}
            whole += [taken["refine"] / taken["alone"]] if repeat else []  # the first warms up
        memory = {name: peak(ways[name]) for name in ("ours", "limit")}

    def ratio(other: str) -> float:
        pairs = zip(times["ours"], times[other], strict=False)
        return round(statistics.median(ours / theirs for ours, theirs in pairs), 4)

    middle = statistics.median(times["ours"])
    return {
        "model": cell.cut.model, "site": cell.site, "depth": 0.0, "strategy": cell.strategy,
        "ratio_to_limit": ratio("limit"), "ratio_to_hook": ratio("hook"),
        "ratio_to_notebook": ratio("notebook"),
        "prepared_to_steps": round(statistics.median(whole), 4),
        "memory_ratio": round(memory["ours"] / memory["limit"], 4),
        "ms_per_image_and_iteration": round(1e3 * middle / STEPS / BATCH, 4),
        "image_size": cell.cut.size,
    }  # fmt: skip


def summary(cells: list[dict]) -> str:
    """A line per cell and the medians."""
    lines = [
        f"{'model':24} {'site':10} {'depth':>5} {'strategy':10} {'limit':>6} {'hook':>6} "
        f"{'notebook':>8} {'memory':>6} {'ms':>8}"
    ]
    lines += [
        f"{c['model']:24} {c['site']:10} {c['depth']:5.2f} {c['strategy']:10} "
        f"{c['ratio_to_limit']:6.3f} {c['ratio_to_hook']:6.3f} {c['ratio_to_notebook']:8.3f} "
        f"{c['memory_ratio']:6.3f} {c['ms_per_image_and_iteration']:8.3f}"
        for c in cells
    ]
    for key in ("ratio_to_limit", "ratio_to_hook", "ratio_to_notebook", "memory_ratio"):
        values = [cell[key] for cell in cells]
        lines.append(f"{key}: median {statistics.median(values):.3f}, worst {max(values):.3f}")
    return "\n".join(lines)


def page(results: dict) -> str:
    """docs/speed.md."""
    cells = results["cells"]

    def middle(key: str) -> float:
        return statistics.median(cell[key] for cell in cells)

    def worst(key: str) -> float:
        return max(cell[key] for cell in cells)

    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rows = [
        f"| {c['model']} | {c['site']} | {c['depth']:.2f} | {c['strategy']} "
        f"| {c['ratio_to_limit']:.3f} | {c['ratio_to_hook']:.2f} | {c['ratio_to_notebook']:.2f} "
        f"| {c['memory_ratio']:.2f} | {c['ms_per_image_and_iteration']:.2f} |"
        for c in cells
    ]
    return "\n".join(
        [
            "# What an iteration costs",
            "",
            "An iteration runs the part of the model behind the pivot forward and backward, and",
            "nothing else. We compare it with a *hand-cut* model. There somebody has written down",
            "the layers behind the pivot by hand, with the same loss and the same",
            "optimiser (Adam), and takes gradients with respect to the pivot only. That is",
            "the least that an iteration can cost, so a ratio of 1 is the best possible.",
            "Every row of the table is one model, one pivot and one strategy, and in every",
            "column less is better.",
            "",
            f"- **Time compared with the hand-cut model**: {middle('ratio_to_limit'):.3f} "
            f"times as "
            f"long in the median of {len(cells)} rows, {worst('ratio_to_limit'):.3f} in",
            "the worst.",
            "- **Time compared with running the whole model with a hook at the pivot**: "
            f"{middle('ratio_to_hook'):.2f} in the median.",
            "- **Time compared with the published notebook**, which runs only the tail but "
            "also asks "
            f"for gradients of the weights: {middle('ratio_to_notebook'):.2f} in the median.",
            f"- **Peak memory compared with the hand-cut model**: {middle('memory_ratio'):.2f} in "
            f"the median, {worst('memory_ratio'):.2f} in the worst.",
            "",
            f"Measured on {results['machine']} with {versions}, in batches of {BATCH} images. The",
            "ways that are compared take turns in one process. Time is CPU time, and a",
            "ratio is the median over pairs of runs. Memory is the peak of all allocated",
            "tensors, including those of the preparation. `make bench` measures all of",
            "this again and writes this page.",
            "",
            "| model | pivot | depth | strategy | time / hand-cut | time / hook | time / notebook "
            "| memory / hand-cut | ms per image |",
            "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure all cells, or those of the models named."""
    parser = argparse.ArgumentParser(description="Speed and memory against hand-cut models.")
    parser.add_argument("models", nargs="*", help="only these; the others' cells are kept")
    parser.add_argument("--repeats", type=int, default=11, help="runs of ours and of the limit")
    parser.add_argument("--slow-repeats", type=int, default=3, help="runs of the other ways")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    versions = {
        "python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__,
    }  # fmt: skip
    cells: list[dict] = []
    if options.models:
        kept = json.loads(RESULTS.read_text())
        if kept["versions"] != versions:
            parser.error(f"the other cells are of {kept['versions']}: measure all models")
        cells = [cell for cell in kept["cells"] if cell["model"] not in options.models]
    for cut in CUTS:
        if options.models and cut.model not in options.models:
            continue
        torch.manual_seed(0)
        model = timm.create_model(cut.model, num_classes=CLASSES, **cut.kwargs).eval()
        model.requires_grad_(False)
        images = torch.randn(BATCH, 3, cut.size, cut.size)
        depths = {s.name: s.depth for s in fa.wrap(model, labels=LABELS).sites(images[:1])}
        for site in cut.sites:
            for strategy in ("residual", "layerwise"):
                cell = Cell(cut, site, strategy, model, images)
                row = measure(cell, options.repeats, options.slow_repeats)
                cells.append(row | {"depth": round(depths[site], 3)})
                print(f"prepared / its steps: {row['prepared_to_steps']:.3f}", flush=True)
                print(summary(cells[-1:]).splitlines()[1], flush=True)
    print(summary(cells))
    order = [cut.model for cut in CUTS]
    cells.sort(key=lambda cell: order.index(cell["model"]))
    machine = f"{platform.machine()} CPU, 1 thread"
    RESULTS.parent.mkdir(exist_ok=True)
    results = {"machine": machine, "versions": versions, "cells": cells}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
