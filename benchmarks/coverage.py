"""Sweep one small model of every timm and torchvision family: `make coverage`.

Writes benchmarks/results/coverage.json family by family, and docs/coverage.md from it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
import traceback
import warnings
from pathlib import Path

import timm
import torch
import torchvision
from conformance import STEP_SIZES, build, check, wrapped_by
from families import TIMM, TORCHVISION, Family

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "coverage.json"
PAGE = HERE.parent / "docs" / "coverage.md"
TESTS = ("exact", "gradient", "refined", "newton", "restored")


def measure(family: Family) -> dict:
    """The row of one family, whatever happens."""
    row = {"model": family.model, "sites": 0, **dict.fromkeys(TESTS, False), "reason": ""}
    try:
        model, images = build(family)
        row["wrapped"] = wrapped_by(family, model)
        row |= check(model, images)
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        row["input"] = list(images.shape[1:])
    except Exception as error:
        row["reason"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return row


def write(rows: dict[str, dict]) -> None:
    """Write the results that there are, families in order."""
    order = [family.name for family in (*TIMM, *TORCHVISION)]
    versions = {
        "python": platform.python_version(), "torch": torch.__version__,
        "timm": timm.__version__, "torchvision": torchvision.__version__,
    }  # fmt: skip
    families = {name: rows[name] for name in order if name in rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"versions": versions, "families": families}, indent=1) + "\n")


def page() -> str:
    """docs/coverage.md, from the results."""
    results = json.loads(RESULTS.read_text())
    versions, rows = results["versions"], results["families"]
    fine = {name: all(row[test] for test in TESTS) for name, row in rows.items()}
    parts = {
        "timm": [name for name in rows if not name.startswith("torchvision.")],
        "torchvision": [name for name in rows if name.startswith("torchvision.")],
    }
    lines = [
        "# Which models it works with",
        "",
        "From every family we took the smallest model, gave it random weights, and refined two",
        "random images with it. Batch norms were calibrated on random images, and the logits were",
        "scaled to a standard deviation of 1. If a family isn't in the",
        "tables, it has not been measured yet. `make coverage` measures everything again",
        "and writes this page. The measurements were made with "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ", in float32 on a CPU.",
        "",
        "Each model was checked in five ways:",
        "",
        "exact",
        ": We chose seven sites, evenly spread from the input to the last site, and ran",
        "  only the part of the model behind each of them. The output equals that of the recorded",
        "  forward pass bit for bit, and `adapter.predict` equals the model's own output bit for",
        "  bit. In the models marked with *, PyTorch computes attention with different kernels",
        "  depending on whether gradients are needed, so that what is recorded differs from what",
        "  the model says by itself in the last digits, by up to 1e-5 of the largest logit.",
        "",
        "gradient",
        ": At each of these sites the gradient is finite, and it exists wherever the",
        "  output depends on the site.",
        "",
        "refined",
        ': The strategies `residual` and `layerwise`, with `pivots="auto"`, made the',
        "  evidence loss of",
        "  every image smaller. The step size was 0.002. For the models marked with + that",
        "  was too long, and it was 0.0002.",
        "",
        "newton",
        ': So did the default strategy, `newton`, with its default options and `pivots="auto"`.',
        "",
        "restored",
        ": After refinement every parameter, buffer, gradient, flag, hook and attribute of every",
        "  module is what it was before.",
        "",
        "Models that don't return (batch, classes) logits were wrapped in a module that does, as",
        "the column 'wrapped' says: its logits are the means of ten parts of what they return. Of",
        "detection models the backbone alone was measured.",
    ]
    for part, names in parts.items():
        count = sum(fine[name] for name in names)
        lines += [
            "",
            f"## {part}: {count} of {len(names)} families",
            "",
            "| family | model | wrapped | parameters | input | sites | " + " | ".join(TESTS) + " |",
            "| --- | --- | --- | ---: | --- | ---: | " + " | ".join([":-:"] * len(TESTS)) + " |",
        ]
        for name in names:
            row = rows[name]
            marks = " | ".join("yes" if row[test] else "**no**" for test in TESTS)
            size = " x ".join(map(str, row.get("input", [])))
            millions = f"{row.get('parameters', 0) / 1e6:.1f} M"
            star = "*" if row.get("rounding") else ""
            star += "+" if row.get("step_size") == STEP_SIZES[-1] else ""
            short = name.removeprefix("torchvision.") + star
            lines.append(
                f"| {short} | {row['model']} | {row.get('wrapped', '')} | {millions} | {size} "
                f"| {row['sites']} | {marks} |"
            )
        reasons = [f"- {name}: {rows[name]['reason']}" for name in names if rows[name]["reason"]]
        lines += ["", *reasons] if reasons else []
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure all families, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="only these, beside what is measured already")
    parser.add_argument("--missing", action="store_true", help="only those without a fine result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # what models say about themselves
    rows: dict[str, dict] = {}
    if (options.families or options.missing) and RESULTS.exists():
        rows = json.loads(RESULTS.read_text())["families"]
    chosen = [*TIMM, *TORCHVISION]
    if options.families:
        chosen = [family for family in chosen if family.name in options.families]
    if options.missing:
        chosen = [f for f in chosen if not all(rows.get(f.name, {}).get(t) for t in TESTS)]
    for family in chosen:
        started = time.perf_counter()
        rows[family.name] = row = measure(family)
        gc.collect()
        write(rows)
        marks = " ".join(test if row[test] else f"NOT-{test}" for test in TESTS)
        seconds = time.perf_counter() - started
        print(f"{family.name:28} {row['model']:36} {row['sites']:4} sites  {marks}  "
              f"{seconds:.1f} s  {row['reason']}", flush=True)  # fmt: skip
    PAGE.write_text(page())
    bad = [name for name, row in rows.items() if not all(row[test] for test in TESTS)]
    print(f"{len(rows) - len(bad)} of {len(rows)} families fine" + (f", not {bad}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
