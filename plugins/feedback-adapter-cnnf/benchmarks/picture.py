"""The picture of docs/cnnf-report.md: feedback at the site, and predictions, over iterations.

    python benchmarks/picture.py --out docs/images/cnnf-iterations.png  # in the plugin's folder

The rows are the first test images of their kind: right at iterations 0 and 2, corrected by 2,
spoiled by 2, wrong at both. Features and feedback are means over channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import torch
import typer
from torch import Tensor

import fa_cnnf
from fa_cnnf.data import fashion_mnist, to_input

mpl.use("Agg")
import matplotlib.pyplot as plt

CLASSES = fashion_mnist.CLASSES
SHOWN = (1, 2, 5, 10)


def draw(axis: Any, value: Tensor, title: str, cmap: str = "viridis") -> None:
    """An image (height, width) without ticks."""
    axis.imshow(value, cmap=cmap)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9)


def lines(axis: Any, probabilities: Tensor, true: int) -> None:
    """The true class and the two likeliest others, (iterations, classes)."""
    others = probabilities.amax(0).argsort(descending=True).tolist()
    shown = [true, *[k for k in others if k != true][:2]]
    for k, color in zip(shown, ("C2", "C3", "C7"), strict=True):
        label = CLASSES[k] + (" (true)" if k == true else "")
        axis.plot(probabilities[:, k], color=color, marker=".", label=label)
    axis.axvline(1, color="0.8", lw=1, zorder=0)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xticks([0, *SHOWN])
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def main(
    out: Annotated[Path, typer.Option(help="Where the picture goes.")],
    checkpoint: Annotated[str, typer.Option()] = "fashion-cnnf-adversarial",
    images: Annotated[int, typer.Option(min=1, help="Test images to pick from.")] = 300,
    noise: Annotated[float, typer.Option(help="Standard deviation, in [0, 1] units.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 7,
) -> None:
    """Draw it, and print how many images feedback corrected and spoiled."""
    pixels, labels = fashion_mnist.read(fashion_mnist.FOLDER)
    x, y = to_input(pixels[:images]), labels[:images]
    generator = torch.Generator().manual_seed(seed)
    x = (x + 2 * noise * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    with torch.no_grad():
        unroll = fa_cnnf.load(checkpoint).model.unroll(x, max(SHOWN))
    right = unroll.logits.argmax(-1) == y
    a, b = right[0], right[2]
    kinds = {
        "right at 0 and 2": a & b,
        "corrected by 2": b & ~a,
        "spoiled by 2": a & ~b,
        "wrong at 0 and 2": ~a & ~b,
    }
    print({name: int(which.sum()) for name, which in kinds.items()})
    ratios = [1] * (2 + len(SHOWN)) + [1.7]
    figure, axes = plt.subplots(
        len(kinds), len(ratios), figsize=(11.5, 6.2), width_ratios=ratios, layout="constrained"
    )
    for row, (what, which) in enumerate(kinds.items()):
        i = int(which.nonzero()[0])
        titles = [f"image, noise {noise:g}", "feature $h_0$", *[f"feedback {t}" for t in SHOWN]]
        titles = titles if row == 0 else [""] * len(titles)
        draw(axes[row, 0], x[i, 0], titles[0], "gray")
        axes[row, 0].set_ylabel(f"{CLASSES[y[i]]}\n({what})", fontsize=8)
        draw(axes[row, 1], unroll.features[0][i].mean(0), titles[1])
        for column, t in enumerate(SHOWN, 2):
            draw(axes[row, column], unroll.reconstructions[t - 1][i].mean(0), titles[column])
        lines(axes[row, -1], unroll.logits[:, i].softmax(-1), int(y[i]))
    axes[0, -1].set_title("probability by iteration", fontsize=9)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    typer.run(main)
