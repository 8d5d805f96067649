"""Images per second of `feedback-adapter batch`, against a loop in plain PyTorch: `make bench`.

Both read the same photos from files, refine them by the same steps of Adam at the same pivot of
coco80-lite0, and get the same probabilities, which is checked. The ways take turns in one process,
and a ratio is the median over pairs of runs, so that other programs on the machine count little.

batch
    A `Job` as the command runs it, with its checks of each row, its Parquet files and its manifest.
loop
    What somebody writes by hand: photos are opened, the model is cut at the pivot, and `optim.Adam`
    moves the pivot, the probabilities are kept in a list. Nothing is checked or written.
loader
    The same loop, whose photos a `DataLoader` opens in a process of its own.

Time is wall time, with one thread for the model; `ratio_cpu` compares CPU seconds. Writes
results/throughput.json beside this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import feedback_adapter as fa
from fa_batch import prepare

RESULTS = Path(__file__).parents[1] / "results" / "throughput.json"
CHECKPOINT, BATCH, STEP_SIZE = "coco80-lite0", 32, 0.05
KNOWN = {"person": 1.0, "dog": 0.0, "chair": 1.0}
CELLS = (("conv_head", 10), ("blocks.4", 10))
ROUNDS = 0.02
"""How far probabilities may differ: Adam makes a large step of a small rounding difference."""


def photos(folder: Path, count: int) -> list[Path]:
    """JPEG files of 640 x 480 pixels with as much detail as photos have."""
    random = np.random.default_rng(0)
    files: list[Path] = []
    for number in range(count):
        layers = [random.integers(0, 255, (n, n, 3), dtype=np.uint8) for n in (3, 24, 120)]
        sized = [
            Image.fromarray(layer).resize((640, 480), Image.Resampling.BICUBIC) for layer in layers
        ]
        mixed = Image.blend(Image.blend(sized[0], sized[1], 0.35), sized[2], 0.2)
        files.append(folder / f"{number:05d}.jpg")
        mixed.save(files[-1], quality=85)
    return files


class Opened(Dataset):
    """The photos as the model's input, written down by hand."""

    def __init__(self, files: list[Path], size: tuple[int, int]) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as photo:
            resized = photo.convert("RGB").resize(self.size[::-1], Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
        return (pixels - 0.5) / 0.5


class Loop:
    """The same refinement in plain PyTorch."""

    def __init__(self, model: nn.Module, labels: tuple[str, ...], site: str, steps: int) -> None:
        self.model, self.steps = model, steps
        blocks = list(model.blocks)
        at = len(blocks) if site == "conv_head" else int(site.partition(".")[2]) + 1
        early = [model.conv_stem, model.bn1, *blocks[:at]]
        late = [*blocks[at:], model.conv_head, model.bn2, model.global_pool, model.classifier]
        cut = 1 if site == "conv_head" else 0
        self.head, self.tail = nn.Sequential(*early, *late[:cut]), nn.Sequential(*late[cut:])
        self.places = [labels.index(label) for label in KNOWN]
        self.told = torch.tensor(list(KNOWN.values()))

    def __call__(self, batches: Iterable[Tensor]) -> list[Tensor]:
        """Probabilities after, batch by batch."""
        found: list[Tensor] = []
        for images in batches:
            with torch.no_grad():
                activation = self.head(images)
                before = self.tail(activation).sigmoid()
            change = torch.zeros_like(activation, requires_grad=True)
            solver = torch.optim.Adam([change], lr=STEP_SIZE)
            told = self.told.expand(len(images), -1)
            for _ in range(self.steps):
                solver.zero_grad()
                logits = self.tail(activation + change)[:, self.places]
                nn.functional.binary_cross_entropy_with_logits(
                    logits, told, reduction="sum"
                ).backward()
                solver.step()
            with torch.no_grad():
                after = self.tail(activation + change).sigmoid()
            after[:, self.places] = told
            found.append(torch.stack([before, after]))
        return found


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(files: list[Path], folder: Path, site: str, steps: int, repeats: int) -> dict:
    """One cell: a pivot and a number of steps."""
    table = folder / "known.csv"
    said = ",".join(str(int(value)) for value in KNOWN.values())
    table.write_text(f"file,{','.join(KNOWN)}\n" + "".join(f"{f.name},{said}\n" for f in files))
    adapter = fa.load(CHECKPOINT)
    model = adapter.model.eval().requires_grad_(False)
    loop = Loop(model, adapter.labels, site, steps)
    data = Opened(files, adapter.transform.size)
    outs = iter(range(10**6))

    def batch() -> Path:
        out = folder / f"{site}-{next(outs)}"
        ready = prepare(
            files[0].parent, out, checkpoint=CHECKPOINT, evidence=table, strategy="residual",
            pivots=(site,), batch=BATCH, shard_size=len(files),
            options={
                "steps": steps, "step_size": STEP_SIZE, "unit": "absolute", "patience": None,
                "keep": "last", "solver": "adam",
            },
        )  # fmt: skip
        taken["batch"] = seconds(ready.run)
        return out

    taken: dict[str, tuple[float, float]] = {}
    loaders = {
        "loop": DataLoader(data, BATCH),
        "loader": DataLoader(data, BATCH, num_workers=1, persistent_workers=True),
    }

    def by_hand(name: str) -> None:
        taken[name] = seconds(lambda: loop(loaders[name]))

    frame = pd.read_parquet(batch())
    ours = torch.tensor(frame[[f"after:{label}" for label in adapter.labels]].to_numpy())
    theirs = torch.cat([part[1] for part in loop(loaders["loop"])])
    apart = float((ours - theirs).abs().max())
    assert apart < ROUNDS, f"{site}: probabilities differ by {apart}"
    by_hand("loader")  # its process starts
    pairs: list[dict[str, tuple[float, float]]] = []
    for repeat in range(repeats):
        ways = ["batch", "loop", "loader"]
        for way in ways if repeat % 2 else reversed(ways):
            batch() if way == "batch" else by_hand(way)
        pairs.append(dict(taken))

    def ratio(other: str, clock: int) -> float:
        return round(
            statistics.median(pair[other][clock] / pair["batch"][clock] for pair in pairs), 4
        )

    cpu = statistics.median(pair["batch"][1] for pair in pairs) / len(files)
    rate = {
        way: round(len(files) / statistics.median(p[way][0] for p in pairs), 2) for way in taken
    }
    return {
        "pivot": site, "steps": steps, "images": len(files), "images_per_second": rate,
        "ratio_to_loop": ratio("loop", 0), "ratio_to_loader": ratio("loader", 0),
        "ratio_cpu": ratio("loop", 1), "core_hours_per_million": round(1e6 * cpu / 3600, 1),
        "largest_difference": round(apart, 6),
    }  # fmt: skip


def main() -> None:
    """Measure all cells."""
    parser = argparse.ArgumentParser(description="Images per second against a plain loop.")
    parser.add_argument("--images", type=int, default=96, help="photos per run")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "photos").mkdir()
        files = photos(folder / "photos", options.images)
        cells = []
        for site, steps in CELLS:
            cells.append(measure(files, folder, site, steps, options.repeats))
            print(cells[-1], flush=True)
    names = ("torch", "timm", "pyarrow", "datasets", "pillow")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    RESULTS.parent.mkdir(exist_ok=True)
    busy = f"{os.getloadavg()[2]:.0f} programs at work on {os.cpu_count()} cores"
    machine = f"{platform.machine()} CPU, 1 thread for the model, {busy}"
    results = {"machine": machine, "checkpoint": CHECKPOINT, "versions": versions, "cells": cells}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
