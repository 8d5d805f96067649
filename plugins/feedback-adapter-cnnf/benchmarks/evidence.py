"""Evidence at the top of the generative pass, against masking the softmax.

    python benchmarks/evidence.py --json results/evidence.json  # in the plugin's folder

Fashion-MNIST, strategy `cnnf`: the coarse class is known (shoes, tops, trousers, bag), or three
of the wrong classes are known to be absent. Accuracy of the unrefined net, of it with the softmax
masked to what is possible, and the same after feedback, with and without the evidence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import fa_cnnf
import feedback_adapter as fa
from fa_cnnf.data import fashion_mnist, to_input

GROUPS = {
    "shoes": ["sandal", "sneaker", "ankle-boot"],
    "tops": ["t-shirt", "pullover", "dress", "coat", "shirt"],
    "trousers": ["trouser"],
    "bags": ["bag"],
}
CLASSES = fashion_mnist.CLASSES
BATCH = 200


def coarse(labels: Tensor) -> tuple[fa.Evidence, Tensor]:
    """The coarse class of each image, and which classes it leaves (n, classes)."""
    group = {name: key for key, names in GROUPS.items() for name in names}
    names = [group[CLASSES[y]] for y in labels.tolist()]
    allowed = torch.tensor([[label in GROUPS[name] for label in CLASSES] for name in names])
    return fa.Coarse(names, hierarchy=GROUPS), allowed


def absent(labels: Tensor, generator: torch.Generator) -> tuple[fa.Evidence, Tensor]:
    """Three wrong classes of each image, drawn at random, are known to be absent."""
    draw = torch.rand(len(labels), len(CLASSES), generator=generator)
    draw[torch.arange(len(labels)), labels] = -1
    out = draw.argsort(1, descending=True)[:, :3]
    allowed = torch.ones_like(draw, dtype=torch.bool).scatter(1, out, False)
    rows = [{CLASSES[i]: 0 for i in row} for row in out.tolist()]
    return fa.Labels(rows), allowed


def main(
    images: Annotated[int, typer.Option(min=1)] = 1000,
    steps: Annotated[int, typer.Option(min=1)] = 2,
    noise: Annotated[float, typer.Option(help="Standard deviation, in [0, 1] units.")] = 0.2,
    seed: Annotated[int, typer.Option()] = 1,
    out: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure on the first test images, clean and with Gaussian noise."""
    pixels, labels = fashion_mnist.read(fashion_mnist.FOLDER)
    clean, y = to_input(pixels[:images]), labels[:images]
    generator = torch.Generator().manual_seed(seed)
    noisy = (clean + 2 * noise * torch.randn(clean.shape, generator=generator)).clamp(-1, 1)
    rows: list[dict[str, Any]] = []
    for name in ("fashion-cnnf", "fashion-cnnf-adversarial"):
        adapter = fa_cnnf.load(name)
        for how, x in (("clean", clean), (f"noise {noise:g}", noisy)):
            for kind in ("coarse", "absent"):
                hits: dict[str, Tensor] = {}
                for part, target in zip(x.split(BATCH), y.split(BATCH), strict=True):
                    evidence, allowed = (
                        coarse(target) if kind == "coarse" else absent(target, generator)
                    )
                    trace = adapter.refine(part, evidence, steps=steps, trace=True).trace
                    told = trace["output"]
                    with torch.no_grad():
                        untold = adapter.model.unroll(part, steps).logits
                    for label, logits in (("unrefined", untold[:1]), ("feedback", untold[1:]),
                                          ("feedback with evidence", told[1:])):  # fmt: skip
                        for t, o in enumerate(logits, 0 if label == "unrefined" else 1):
                            for masked in (False, True):
                                z = o.masked_fill(~allowed, -torch.inf) if masked else o
                                key = f"{label}|{t}|{masked}"
                                right = (z.argmax(1) == target).sum()
                                hits[key] = hits.get(key, torch.tensor(0)) + right
                for key, count in hits.items():
                    label, t, masked = key.split("|")
                    row = {
                        "checkpoint": name, "images": images, "input": how, "evidence": kind,
                        "method": label, "iteration": int(t), "masked": masked == "True",
                        "accuracy": round(100 * int(count) / images, 2), "seed": seed,
                    }  # fmt: skip
                    rows.append(row)
                    print(row, flush=True)
    if out is not None:
        out.write_text('{"rows": [\n' + ",\n".join(json.dumps(r) for r in rows) + "\n]}\n")


if __name__ == "__main__":
    typer.run(main)
