"""The coarse class known, the fine class predicted (paper section 4.2).

    python hierarchy.py --data DATA [--split dev --sweep layer4,features]

DATA holds the folder tinyimagenet_h. `--sweep` tries pivots and step sizes, on dev; what it chose
is measured on test.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import feedback_adapter as fa
from fa_evaluate.protocols.hierarchy import Hierarchy
from fa_evaluate.request import Request
from fa_evaluate.rows import write_rows
from fa_evaluate.tables import markdown

RESULTS = Path(__file__).parents[1] / "results"
CHECKPOINT = "tinyimagenet-tree"
PIVOTS = {
    "layer3": "backbone.layer3",
    "layer4": "backbone.layer4",
    "features": "backbone.global_pool",
}
FREE = {"strategy": "residual", "patience": None, "keep": "last", "steps": 5}
CHOSEN: dict[str, dict[str, Any]] = {
    "auto": {},
    "clamp": {"strategy": "clamp"},
    "newton through the classes": {
        "strategy": "newton", "pivots": [PIVOTS["layer4"]], "through": "classes",
    },
    "newton through the coarse head": {
        "strategy": "newton", "pivots": [PIVOTS["layer4"]], "through": "head",
    },
    "residual through the coarse head": {
        **FREE, "pivots": [PIVOTS["layer4"]], "through": "head", "solver": "adam",
        "step_size": 0.003,
    },
    "residual through the classes": {
        **FREE, "pivots": [PIVOTS["features"]], "through": "classes", "solver": "adam",
        "step_size": 0.003,
    },
    "residual, large steps": {
        **FREE,
        "pivots": [PIVOTS["layer4"]],
        "through": "classes",
        "solver": "adam",
        "step_size": 0.03,
    },
    "residual-reference through the classes": {
        "strategy": "residual", "pivots": [PIVOTS["layer4"]], "through": "classes",
        "options": fa.ResidualOptions.reference(step_size=0.03),
    },
    "residual-reference through the coarse head": {
        "strategy": "residual", "pivots": [PIVOTS["layer4"]], "through": "head",
        "options": fa.ResidualOptions.reference(step_size=0.03),
    },
}  # fmt: skip
"""By the sweep on dev: the best masked accuracy through each, larger steps, what is published."""


def main(
    data: Annotated[Path, typer.Option(help="Folder with tinyimagenet_h.")],
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="So many images, drawn with seed 0.")] = None,
    sweep: Annotated[
        str, typer.Option(help="Try these pivots, with commas: layer3, layer4, features.")
    ] = "",
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "hierarchy.json",
) -> None:
    """Measure and write rows; print the table."""
    started = time.time()
    request = Request.of(CHECKPOINT, data / "tinyimagenet_h", split=split)
    images = request.labelled("fine")
    drawn = np.random.default_rng(0).permutation(len(images))[: limit or len(images)]
    images = images.select(np.sort(drawn))
    fine = torch.from_numpy(images.targets.argmax(1))
    rows = Hierarchy(batch=100).run(
        request.adapter, request.photos(images), fine,
        trials(sweep.split(",")) if sweep else CHOSEN, checkpoint=CHECKPOINT,
        progress=lambda note: print(f"\r{time.time() - started:6.0f} s  {note:60}", end=""),
    )  # fmt: skip
    write_rows(out, rows, [0], split=split)
    print("\n" + markdown(rows), f"{time.time() - started:.0f} s")


def trials(pivots: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every pivot, kind of evidence, solver and step size that the sweep tries."""
    found: dict[str, dict[str, Any]] = {}
    steps = {"adam": (0.003, 0.01, 0.03), "gradient": (1.0, 10.0)}
    for (name, site), through, (solver, sizes) in itertools.product(
        ((name, PIVOTS[name]) for name in pivots), ("classes", "head", "both"), steps.items()
    ):
        for size in sizes:
            own = {"pivots": [site], "through": through, "solver": solver, "step_size": size}
            found[f"residual, {name}, {through}, {solver} {size}"] = {**FREE, **own}
    for through, size in itertools.product(("classes", "head"), (0.01, 0.03, 0.1)):
        options = fa.ResidualOptions.reference(step_size=size)
        found[f"residual-reference, layer4, {through}, {size}"] = {
            "strategy": "residual", "pivots": [PIVOTS["layer4"]], "through": through,
            "options": options,
        }  # fmt: skip
    return found


if __name__ == "__main__":
    typer.run(main)
