"""The pictures of the documentation: predictions that revise themselves, and how much they gain."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from camvid_nets import CLASSES
from camvid_task import network_input as street_input
from camvid_task import read
from command import HERE
from matplotlib.animation import FuncAnimation, PillowWriter
from methods import SMALL
from safetensors.torch import load_file
from sampling import clicks, error_click
from torch import Tensor
from triangle_task import Task, known, masks, network_input

import feedback_adapter as fa
from fa_dfm import DFM, Known, Unroll

STEPS = (1, 2, 3, 4, 6)
CLICKED = {"strategy": "newton", "pivots": "feedback", "prior_std": 32.0}
"""How `known_pixels.py` refines frames."""

COLOURS = {"loop": "tab:blue", "loop, cut": "tab:cyan", "feedforward": "tab:orange"}
COLOURS |= {"untied": "tab:green", "unet": "tab:red"}


def main(
    triangles: Annotated[Path, typer.Option(help="Weights of the loop on single triangles.")],
    pairs: Annotated[Path, typer.Option(help="Weights of the loop on pairs of triangles.")],
    out: Path = HERE / "docs" / "images",
    results: Path = HERE / "results",
    data: Annotated[Path | None, typer.Option(help="Folder of CamVid, for its picture.")] = None,
) -> None:
    """Draw all pictures; that of CamVid only where the folder of its data is given."""
    out.mkdir(parents=True, exist_ok=True)
    one, two = (_load(file) for file in (triangles, pairs))
    single, double = Task(), Task(pairs=True)
    images, meant, _ = _scene(single, sigma=2.0, seed=4)
    looked = one.unroll(images, steps=12)
    clicked, wanted, facts = _scene(double, sigma=0.5, seed=4)
    without, listening = two.unroll(clicked, steps=6), two.unroll(clicked, facts, steps=6)
    _strip(
        out / "triangles.png",
        [
            ("noise 2", images, meant, None, looked),
            ("two triangles", clicked, wanted, None, without),
            ("one click", clicked, wanted, facts, listening),
        ],
    )
    _film(out / "triangles.gif", images, one.unroll(images, steps=8))
    _film(out / "click.gif", clicked, listening)
    _changes(out / "changes.png", one, single)
    _curves(out / "curves.png", results)
    if data is not None:
        _street(out / "camvid.png", *read(data, "val", "cpu"))


def _load(file: Path) -> DFM:
    net = SMALL["loop"].make(48, 0)
    net.load_state_dict(load_file(file))
    return net.requires_grad_(False).eval()


def _scene(task: Task, sigma: float, seed: int) -> tuple[Tensor, Tensor, Known]:
    """One image, what is meant, and one click into it."""
    scene = masks(task, 1, seed, "cpu")
    generator = torch.Generator().manual_seed(seed)
    images = network_input(scene.white, torch.tensor([sigma]), generator)
    told = clicks(scene.meant[:, 0] > 0, torch.tensor([1]), 1, generator)
    return images, scene.meant, known(told, scene.meant)


def _strip(file: Path, rows: list[tuple[str, Tensor, Tensor, Known | None, Unroll]]) -> None:
    figure, axes = plt.subplots(len(rows), 2 + len(STEPS), figsize=(11, 1.75 * len(rows)))
    for row, (name, images, meant, facts, unroll) in zip(axes, rows, strict=True):
        row[0].imshow(images[0, 0], cmap="gray")
        row[0].set_ylabel(name)
        if facts is not None:
            y, x = facts.weight[0, 0].nonzero()[0].tolist()
            row[0].plot(x, y, "o", color="red", markersize=5)
        for axis, step in zip(row[1:], STEPS, strict=False):
            axis.imshow(unroll.logits[step - 1, 0, 0].sigmoid(), cmap="viridis", vmin=0, vmax=1)
            axis.set_title(f"look {step}", fontsize=9)
        row[-1].imshow(meant[0, 0], cmap="viridis")
        row[-1].set_title("truth", fontsize=9)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    axes[0, 0].set_title("image", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def _film(file: Path, images: Tensor, unroll: Unroll) -> None:
    frames = unroll.logits[:, 0, 0].sigmoid()
    figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2.2))
    left.imshow(images[0, 0], cmap="gray")
    shown = right.imshow(torch.full_like(frames[0], 0.5), cmap="viridis", vmin=0, vmax=1)
    for axis in (left, right):
        axis.axis("off")
    figure.tight_layout()

    def draw(index: int) -> None:
        shown.set_data(frames[min(index, len(frames) - 1)])
        right.set_title(f"look {min(index, len(frames) - 1) + 1}", fontsize=9)

    film = FuncAnimation(figure, draw, frames=len(frames) + 2)  # a rest on the last one
    film.save(file, PillowWriter(fps=2), dpi=70)
    plt.close(figure)


def _changes(file: Path, net: DFM, task: Task) -> None:
    figure, axis = plt.subplots(figsize=(4.5, 3))
    scenes = masks(task, 50, 7, "cpu")
    for sigma in (1.0, 2.0, 3.0):
        noise, generator = torch.full((50,), sigma), torch.Generator().manual_seed(1)
        images = network_input(scenes.white, noise, generator)
        changes = net.unroll(images, steps=12).changes.mean(1)
        axis.semilogy(np.arange(1, 13), changes, "o-", label=f"noise {sigma:g}")
    axis.set_xlabel("look")
    axis.set_ylabel("mean change of a pixel")
    axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def _curves(file: Path, results: Path) -> None:
    """IoU against noise and against the number of training images, from the tables."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), sharey=False)
    noise = _rows(results / "triangles.json")
    examples = _rows(results / "examples.json")
    counts = (2, 4, 8, 16, 32)
    for method, colour in COLOURS.items():
        _curve(left, noise, method, colour, {s: f"48 px, sigma {s}" for s in (1, 2, 3, 4)})
        _curve(
            right, examples, method, colour, {n: f"48 px, sigma 2, {n} examples" for n in counts}
        )
    left.set_xlabel("noise (trained up to 3)")
    right.set_xlabel("training images (noise 2)")
    right.set_xscale("log", base=2)
    right.set_xticks(counts, [str(n) for n in counts])
    left.set_ylabel("foreground IoU in percent")
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def _street(file: Path, images: Tensor, masks: Tensor, frame: int = 60) -> None:
    """A frame of the validation split, corrected by three clicks, one after the other.

    The photo itself isn't drawn: its licence doesn't let the project pass it on.
    """
    adapter = fa.load("camvid-feedforward")
    image, mask = street_input(images[[frame]]), masks[[frame]]
    told = torch.zeros_like(mask, dtype=torch.bool)
    predicted = adapter.predict(image)
    for _ in range(3):
        told = told | error_click(predicted.argmax(1), mask, CLASSES)
        clicked = [(x, y, adapter.labels[mask[0, y, x]]) for y, x in told[0].nonzero().tolist()]
        result = adapter.refine(image, fa.Pixels(clicks=clicked), **CLICKED)
        predicted = result.after
    dataclasses.replace(result, images=None).plot(file, top=8)


def _rows(file: Path) -> dict[tuple[str, str], dict[str, float]]:
    rows = json.loads(file.read_text())["rows"]
    return {(row["method"], row["condition"]): row for row in rows}


def _curve(
    axis: plt.Axes,
    rows: dict[tuple[str, str], dict[str, float]],
    method: str,
    colour: str,
    conditions: dict[int, str],
) -> None:
    found = {x: rows[method, c] for x, c in conditions.items() if (method, c) in rows}
    if found:
        values = [row["value"] for row in found.values()]
        spread = [row["sd"] or 0 for row in found.values()]
        axis.errorbar(list(found), values, spread, marker="o", color=colour, label=method)


if __name__ == "__main__":
    typer.run(main)
