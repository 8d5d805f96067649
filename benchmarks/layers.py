"""One pivot after the other, and several at once: what they gain and what they cost.

    python benchmarks/layers.py --data FOLDER    # with flickr8k in it

The paper's Tables 3 to 5 and its Figure 5, on caption-words-lite0's test split, half of the words
known. Step size and steps of each pivot are those that `benchmarks/choose_pivots.py` found best on
dev (docs/results/choose-pivots.json). Sets of pivots grow from the last to the first, each with the
settings of its earliest one; times are medians over batches, per image and step.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from choose_pivots import BATCH, CHECKPOINT, Half

from feedback_adapter.batches import split

FORMS = ("residual", "layerwise")


def measure(
    half: Half, sites: list[str], setting: dict[str, Any], form: str, images: int
) -> dict[str, Any]:
    """What mAP gains on the first images, and how long an image takes."""
    options = {**half.adapter.defaults.options, **setting, "patience": None, "keep": "last"}
    logits, times = [], []
    for rows in split(images, BATCH):
        prepared = half.adapter.prepare(half.photos[rows], pivots=sites)
        started = time.perf_counter()
        result = half.adapter.refine(prepared, half.evidence(rows), strategy=form, **options)
        times.append((time.perf_counter() - started) / len(rows))
        logits.append(result.after)
    gain = half.score(torch.cat(logits)) - half.score(half.logits[:images])
    return {
        "pivots": sites, "strategy": form, "images": images, **setting, "gain": round(gain, 2),
        "ms_per_image": round(1e3 * statistics.median(times), 2),
    }  # fmt: skip


def main(
    data: Annotated[Path, typer.Option(help="Folder with flickr8k.")],
    of: Annotated[str, typer.Option("--split", help="dev or test.")] = "test",
    images: Annotated[int, typer.Option(help="The first so many.")] = 900,
    chosen: Annotated[Path, typer.Option(help="The search on dev.")] = Path(
        "docs/results/choose-pivots.json"
    ),
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path("docs/results/layers.json"),
) -> None:
    """Measure, print, write."""
    settings = best(json.loads(chosen.read_text())["search"])
    sites = list(settings)
    rows: list[dict[str, Any]] = []
    half = Half(data, of)
    for count, site in enumerate(sites, 1):
        cases = [([site], "residual")] + [(sites[:count][::-1], form) for form in FORMS]
        for pivots, form in cases if count > 1 else cases[:1]:
            rows.append(measure(half, pivots, settings[site], form, min(images, len(half.truth))))
            print(rows[-1], flush=True)
            _write(out, rows, of, half.score(half.logits[:images]))


def best(search: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`{site: step size and steps}` with the best gain on as many images as were searched."""
    found: dict[str, dict[str, Any]] = {}
    for site in dict.fromkeys(row["site"] for row in search):
        own = [row for row in search if row["site"] == site]
        most = max(row["images"] for row in own)
        top = max((r for r in own if r["images"] == most), key=lambda row: max(row["gains"]))
        steps = top["gains"].index(max(top["gains"])) + 1
        found[site] = {"step_size": top["step_size"], "steps": steps}
    return found


def _write(out: Path, rows: list[dict[str, Any]], of: str, unrefined: float) -> None:
    content = {
        "checkpoint": CHECKPOINT, "split": of, "unrefined_map": round(unrefined, 2),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)", "rows": rows,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
