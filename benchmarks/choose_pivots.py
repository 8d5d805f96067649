"""How good is the site that `Adapter.choose_pivots` chooses, against all sites tried on dev?

On caption-words-lite0: half of the words may be known (all of them are given), the other half is
scored (the partial-labels protocol). `choose_pivots` sees the known half only; the exhaustive
search tries the same settings at every stage of the network and looks at the unknown half's mean
average precision (mAP), which nobody could who doesn't know the answers.

    python benchmarks/choose_pivots.py --data FOLDER    # with flickr8k in it

Takes minutes on an accelerator, hours on a CPU. Writes benchmarks/results/choose_pivots.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import feedback_adapter as fa
from feedback_adapter.protocols.partial_labels import PartialLabels, mean_average_precision

CHECKPOINT = "caption-words-lite0"
RESULTS = Path(__file__).parent / "results" / "choose_pivots.json"
SITES = [*(f"blocks.{i}" for i in range(1, 7)), "conv_head", "global_pool"]
SOLVERS = {
    "Adam": (fa.Adam(), (0.003, 0.01, 0.03)),
    "gradient descent": (fa.SGD(momentum=0.0), (1.0, 10.0)),
}
STEPS = 20


def exhaustive(
    adapter: fa.Adapter, images: Tensor, targets: np.ndarray, solver: fa.Solver, sizes: tuple
) -> dict[tuple[str, float, int], float]:
    """mAP over the unknown half, by (site, step size, steps)."""
    truth, known, scored = _halves(targets)
    found: dict[tuple[str, float, int], float] = {}
    for site in SITES:
        for size in sizes:
            parts = []
            for rows in torch.arange(len(images)).split(BATCH):
                result = adapter.refine(
                    images[rows.to(images.device)],
                    fa.Labels.from_tensors(truth[rows], known),
                    strategy="residual",
                    pivots=site,
                    options=fa.ResidualOptions(
                        steps=STEPS, step_size=size, solver=solver, patience=None, keep="last",
                        trace=True,
                    ),
                )  # fmt: skip
                parts.append(result.trace["output"][..., scored].float().cpu().numpy())
            trace = np.concatenate(parts, 1)
            for step in range(1, STEPS + 1):
                found[site, size, step] = mean_average_precision(trace[step], targets[:, scored])
            best = max((found[site, size, step], step) for step in range(1, STEPS + 1))
            print(f"{site:12} {size:<6g} best {best[0]:.2f} at {best[1]} steps", flush=True)
    return found


BATCH = 64


def _halves(targets: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
    protocol = PartialLabels(known=[100])
    _, scored = protocol.halves(targets.shape[1])
    mask = next(iter(protocol.masks(targets.shape[1], 100)))
    return torch.from_numpy(targets).float(), torch.from_numpy(mask), scored


def measure(adapter: fa.Adapter, images: Tensor, targets: np.ndarray) -> dict:
    """Choose, then search, for each solver."""
    truth, known, scored = _halves(targets)
    evidence = fa.Labels.from_tensors(truth, known)
    plain = torch.cat([adapter.predict(part) for part in images.split(BATCH)]).cpu().numpy()
    base = mean_average_precision(plain[:, scored], targets[:, scored])
    rows = {}
    for name, (solver, sizes) in SOLVERS.items():
        arguments = {"strategy": "residual", "solver": solver, "steps": STEPS}
        arguments |= {"step_sizes": sizes, "batch": BATCH}
        few = slice(0, 200)
        choices = {
            "default sites": adapter.choose_pivots(images, evidence, **arguments),
            "all sites": adapter.choose_pivots(images, evidence, pivots=SITES, **arguments),
            "default sites, 200 images": adapter.choose_pivots(
                images[few], fa.Labels.from_tensors(truth[few], known), **arguments
            ),
        }
        started = time.perf_counter()
        found = exhaustive(adapter, images, targets, solver, sizes)
        seconds = time.perf_counter() - started
        (site, size, steps), best = max(found.items(), key=lambda item: item[1])
        by_site = {s: max(v for key, v in found.items() if key[0] == s) for s in SITES}
        row = {
            "base_map": round(base, 3), "best_map": round(best, 3),
            "best": {"pivot": site, "step_size": size, "steps": steps},
            "best_map_by_site": {s: round(v, 3) for s, v in by_site.items()},
            "search_seconds": round(seconds, 1), "choices": {},
        }  # fmt: skip
        for way, choice in choices.items():
            got = choice.chosen
            value = found.get((got.pivot, got.step_size, got.steps))
            likeliest = choice.trials[0]
            likeliest_value = found.get((likeliest.pivot, likeliest.step_size, likeliest.steps))
            row["choices"][way] = {
                "pivot": got.pivot, "step_size": got.step_size, "steps": got.steps,
                "map": value, "behind": None if value is None else round(best - value, 3),
                "site_behind": None if value is None else round(best - by_site[got.pivot], 3),
                "likeliest": [likeliest.pivot, likeliest.step_size, likeliest.steps],
                "likeliest_map": likeliest_value,
                "seconds": round(choice.seconds, 1),
            }  # fmt: skip
        print(name, json.dumps(row, indent=1), flush=True)
        rows[name] = row
    return rows


def main() -> None:
    """Read dev, measure, write."""
    parser = argparse.ArgumentParser(description="choose_pivots against an exhaustive search.")
    parser.add_argument("--data", type=Path, required=True, help="the folder that flickr8k is in")
    parser.add_argument("--images", type=int, help="only that many of dev")
    options = parser.parse_args()
    from feedback_adapter.data import read

    device = "cuda" if torch.cuda.is_available() else "cpu"
    adapter = fa.load(CHECKPOINT, device=device)
    dev = read(options.data / "flickr8k", adapter.labels, "caption-words").subset("dev")
    rows = range(len(dev.names))[: options.images]
    images = torch.stack([adapter.transform(dev.open(row)) for row in rows]).to(device)
    write(measure(adapter, images, dev.targets[: len(images)]), len(images))


def write(rows: dict, images: int) -> None:
    """Write the results with the machine and the versions."""
    gpu = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if gpu else f"{platform.machine()} CPU"
    results = {
        "machine": machine, "versions": {"torch": torch.__version__}, "images": images,
        "solvers": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
