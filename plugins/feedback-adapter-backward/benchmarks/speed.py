"""Seconds of one query, and how they grow with K: part of `make bench`.

A net of the shapes of `planes-backward` with random weights, one image of 128 x 128 pixels, one
category, the default search, two threads. Each number is the median over repetitions that take
turns; CPU seconds (of all threads) stand beside those on the clock, since other programs on the
machine disturb them less. Writes results/speed.json.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from fa_backward import GenerativeModel
from fa_backward.net import build

RESULTS = Path(__file__).parents[1] / "results" / "speed.json"
COUNTS = (125, 250, 500, 1000)  # K of the top
GOAL, GOAL_AT = 1.0, 500  # seconds on two cores
THREADS = 2
LAYERS = [
    [24, 5, True], [48, 3, True], [96, 3, False], [96, 3, True],
    [128, 3, False], [128, 3, True], [96, 3, False],
]  # fmt: skip


def model(templates: int) -> GenerativeModel:
    """A model with random templates."""
    torch.manual_seed(0)
    net = build(
        "generative",
        {
            "layers": LAYERS,
            "categories": ["plane"],
            "side": 128,
            "sites": [1, 2, 3],
            "templates": templates,
            "components": 4,
        },
    ).eval()
    top = net.activations.templates
    top.logit.normal_()
    top.mean.uniform_(0, 2)
    top.log_prior.fill_(-torch.tensor(float(templates)).log())
    return net.generative()


def main() -> None:
    """Measure every K."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    models = {count: model(count) for count in COUNTS}
    clock: dict[int, list[float]] = {count: [] for count in COUNTS}
    cpu: dict[int, list[float]] = {count: [] for count in COUNTS}
    for repetition in range(options.repetitions + 1):
        for count, asked in models.items():
            begin, used = time.perf_counter(), time.process_time()
            asked.backward(image)
            if repetition:  # the first one warms up
                clock[count].append(time.perf_counter() - begin)
                cpu[count].append(time.process_time() - used)
    rows = [
        {
            "K": count,
            "seconds": round(statistics.median(clock[count]), 3),
            "fastest": round(min(clock[count]), 3),
            "cpu_seconds": round(statistics.median(cpu[count]), 3),
        }
        for count in COUNTS
    ]
    table = {
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {THREADS} threads",
        "goal": {"K": GOAL_AT, "seconds": GOAL},
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=1) + "\n")
    for row in rows:
        print("backward", row)


if __name__ == "__main__":
    main()
