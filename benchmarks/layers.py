"""Layer by layer, and time against the number of pivots (the paper's Tables 3 to 5, Figure 5).

    python benchmarks/layers.py --data DATA [--checkpoint caption-words-lite0] [--images 100]

Every block of the network in turn is the pivot, for the residual form with one relative step
size everywhere and for both published forms; then pivots are added from the last to the first.
All of the known half is given. Few photos, since early pivots are slow on a CPU: intervals say
how far the figures can be trusted.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

import feedback_adapter as fa
from feedback_adapter.checkpoint import find, read_config
from feedback_adapter.protocols.partial_labels import PartialLabels
from feedback_adapter.protocols.request import Request
from feedback_adapter.protocols.rows import write_rows
from feedback_adapter.protocols.tables import markdown

FOLDERS = {"caption-words-lite0": "flickr8k", "coco80-lite0": "coco6k"}
OURS = {"solver": "adam", "step_size": 0.01, "steps": 10, "patience": None}


def main(
    checkpoint: str = "caption-words-lite0",
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")] = Path("data"),
    split: str = "test",
    images: int = 100,
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path("docs/results/layers.json"),
) -> None:
    """Measure and write rows; print the table."""
    started = time.time()
    adapter, config = fa.load(checkpoint), read_config(find(checkpoint))
    request = Request(
        checkpoint, adapter, config, data / FOLDERS[checkpoint], split=split, limit=images
    )
    labelled = request.labelled()
    rows = PartialLabels(known=[100], draws=1, samples=100, batch=50).run(
        adapter, request.photos(labelled), labelled.targets, methods(adapter, config),
        checkpoint=checkpoint,
        progress=lambda note: print(f"{time.time() - started:6.0f} s  {note}", flush=True),
    )  # fmt: skip
    write_rows(out, rows, [0], split=split)
    print(markdown(rows), f"{time.time() - started:.0f} s")


def methods(adapter: fa.Adapter, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One pivot at a time, then more and more of them."""
    net: Any = adapter.model
    sites = ["bn1", *(f"blocks.{i}" for i in range(len(net.blocks))), "conv_head"]
    tuned = config["refine"].get("reference", {}).get("residual", {})
    own = {key: value for key, value in tuned.items() if key != "pivots"}
    published = {
        "residual-reference": {"strategy": "residual", "options": fa.ResidualOptions},
        "layerwise-reference": {"strategy": "layerwise", "options": fa.LayerwiseOptions},
    }
    found: dict[str, dict[str, Any]] = {}
    for site in sites:
        found[f"residual at {site}"] = {"strategy": "residual", "pivots": [site], **OURS}
    for site in ("blocks.2", "blocks.4", "conv_head"):
        for name, arguments in published.items():
            options = arguments["options"].reference(**own)
            found[f"{name} at {site}"] = {**arguments, "pivots": [site], "options": options}
    for count in (1, 2, 4, 8):
        several = sites[-count:]
        found[f"residual, last {count} pivots"] = {
            "strategy": "residual", "pivots": several, **OURS
        }  # fmt: skip
        found[f"layerwise, last {count} pivots"] = {
            "strategy": "layerwise", "pivots": several, **OURS
        }  # fmt: skip
    return found


if __name__ == "__main__":
    typer.run(main)
