"""Does `torch.compile` of a tail pay? Compile time, saving per image and iteration, break-even.

By hand, without the adapter: the tail as a module of its own, its gradient with respect to the
activation, eager and compiled in turns.

    python benchmarks/compiled_tail.py --model tf_efficientnet_lite0 --block 5
"""

from __future__ import annotations

import copy
import json
import platform
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import timm
import torch
import typer
from torch import nn


def main(
    model: Annotated[str, typer.Option(help="resnet18 or tf_efficientnet_lite0.")] = "resnet18",
    block: Annotated[int, typer.Option(help="The tail follows this stage.")] = 2,
    batch: int = 16,
    rounds: int = 12,
    out: Annotated[Path | None, typer.Option(help="JSON file, a row is added.")] = None,
) -> None:
    """Time eager and compiled in turns."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = timm.create_model(model, num_classes=80).eval().requires_grad_(False)
    names = ["global_pool", "fc"]
    if model == "resnet18":
        before = [net.conv1, net.bn1, net.act1, net.maxpool, net.layer1, net.layer2, net.layer3]
        before, after = before[: 4 + block], [net.layer2, net.layer3, net.layer4][block - 1 :]
    else:
        before = [net.conv_stem, net.bn1, *net.blocks[: block + 1]]
        after = [*net.blocks[block + 1 :], net.conv_head, net.bn2]
        names[1] = "classifier"
    tail = nn.Sequential(*after, *(net.get_submodule(name) for name in names))
    with torch.no_grad():
        activation = nn.Sequential(*before)(torch.randn(batch, 3, 224, 224))
    targets = (torch.rand(batch, 80) < 0.1).float()

    def iterate(run: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = activation.clone().requires_grad_()
        logits = run(leaf)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return logits.detach(), torch.autograd.grad(loss, leaf)[0]

    compiled = torch.compile(copy.deepcopy(tail))
    started = time.perf_counter()
    found = iterate(compiled)
    seconds = time.perf_counter() - started
    plain = iterate(tail)
    apart = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, plain, strict=True)]
    times: dict[str, list[float]] = {"eager": [], "compiled": []}
    for _ in range(rounds):
        for name, run in (("eager", tail), ("compiled", compiled)):
            started = time.perf_counter()
            iterate(run)
            times[name].append((time.perf_counter() - started) * 1e3 / batch)
    ms = {name: float(np.median(values)) for name, values in times.items()}
    saved = ms["eager"] - ms["compiled"]
    row = {
        "model": model, "block": block, "batch": batch, "compile_seconds": round(seconds, 1),
        "eager_ms": round(ms["eager"], 3), "compiled_ms": round(ms["compiled"], 3),
        "break_even_image_iterations": round(seconds * 1e3 / saved) if saved > 0 else None,
        "difference_logits": apart[0], "difference_gradient": apart[1],
        "machine": f"{platform.machine()}, 1 thread", "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    if out is not None:
        rows = json.loads(out.read_text()) if out.is_file() else []
        out.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
