"""The coarse class known, the fine class predicted (paper section 4.2).

    python hierarchy.py --data DATA [--split dev --sweep layer4,features]

DATA holds the folder tinyimagenet_h. What comes before the third stage's end runs once for each
image; the rest is wrapped as a model of its own. `--sweep` tries pivots and step sizes, on dev;
what it chose is measured on test.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

import feedback_adapter as fa
from fa_evaluate.data import LabelledImages, read
from fa_evaluate.protocols.hierarchy import Hierarchy
from fa_evaluate.rows import write_rows
from fa_evaluate.tables import markdown
from feedback_adapter.checkpoint import find, read_config

RESULTS = Path(__file__).parents[1] / "results"
CHECKPOINT = "tinyimagenet-tree"
PIVOTS = {"layer3": "start", "layer4": "layer4", "features": "global_pool"}
FREE = {"strategy": "residual", "patience": None, "keep": "last", "steps": 5}
CHOSEN: dict[str, dict[str, Any]] = {
    "residual through the coarse head": {
        **FREE, "pivots": ["layer4"], "through": "head", "solver": "adam", "step_size": 0.003
    },
    "residual through the classes": {
        **FREE, "pivots": ["global_pool"], "through": "classes", "solver": "adam",
        "step_size": 0.003,
    },
    "residual, large steps": {
        **FREE,
        "pivots": ["layer4"],
        "through": "classes",
        "solver": "adam",
        "step_size": 0.03,
    },
    "residual-reference through the classes": {
        "strategy": "residual", "pivots": ["layer4"], "through": "classes",
        "options": fa.ResidualOptions.reference(step_size=0.03),
    },
    "residual-reference through the coarse head": {
        "strategy": "residual", "pivots": ["layer4"], "through": "head",
        "options": fa.ResidualOptions.reference(step_size=0.03),
    },
}  # fmt: skip
"""By the sweep on dev: the best masked accuracy through each, larger steps, what is published."""


class FromStage3(nn.Module):
    """The model from the third stage's output on, by the names it has there."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.start = nn.Identity()
        self.layer4, self.global_pool = model.backbone.layer4, model.backbone.global_pool
        self.heads = model.heads

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        features = self.global_pool(self.layer4(self.start(maps)))
        return {name: head(features) for name, head in self.heads.items()}


@torch.no_grad()
def stage3(adapter: fa.Adapter, images: LabelledImages, file: Path) -> Tensor:
    """(N, channels, height, width), kept in a file once computed."""
    if file.is_file():
        return torch.from_numpy(np.load(file)).float()
    net: Any = adapter.model.backbone
    parts = []
    for rows in torch.arange(len(images)).split(50):
        x = torch.stack([adapter.transform(images.open(i)) for i in rows.tolist()])
        x = net.maxpool(net.act1(net.bn1(net.conv1(x))))
        parts.append(net.layer3(net.layer2(net.layer1(x))).half())
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, torch.cat(parts).numpy())
    return torch.cat(parts).float()


def main(
    data: Annotated[Path, typer.Option(help="Folder with tinyimagenet_h.")],
    cache: Annotated[Path, typer.Option(help="For what comes before pivots.")] = Path("runs/cache"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="So many images, drawn with seed 0.")] = None,
    sweep: Annotated[
        str, typer.Option(help="Try these pivots, with commas: layer3, layer4, features.")
    ] = "",
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "hierarchy.json",
) -> None:
    """Measure and write rows; print the table."""
    started = time.time()
    adapter = fa.load(CHECKPOINT)
    images = read(data / "tinyimagenet_h", adapter.outputs["fine"].labels, "tinyimagenet-fine")
    images = images.subset(split)
    drawn = np.random.default_rng(0).permutation(len(images))[: limit or len(images)]
    images = images.select(np.sort(drawn))
    sha = read_config(find(CHECKPOINT))["weights"]["sha256"][:8]
    maps = stage3(adapter, images, cache / f"{CHECKPOINT}-{sha}-{split}-{len(images)}.npy")
    tail = fa.Adapter(FromStage3(adapter.model).eval(), adapter.outputs)
    fine = torch.from_numpy(images.targets.argmax(1))
    rows = Hierarchy(batch=100).run(
        tail, maps, fine, trials(sweep.split(",")) if sweep else CHOSEN, checkpoint=CHECKPOINT,
        progress=lambda note: print(f"\r{time.time() - started:6.0f} s  {note:60}", end=""),
    )  # fmt: skip
    write_rows(out, rows, [0], split=split)
    print("\n" + markdown(rows), f"{time.time() - started:.0f} s")


def trials(pivots: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every pivot, kind of evidence, solver and step size that the sweep tries."""
    found: dict[str, dict[str, Any]] = {}
    steps = {"adam": (0.003, 0.01, 0.03), "gradient": (1.0, 10.0)}
    for (name, site), through, (solver, sizes) in itertools.product(
        ((name, PIVOTS[name]) for name in pivots), ("classes", "head", "both"), steps.items()
    ):
        for size in sizes:
            own = {"pivots": [site], "through": through, "solver": solver, "step_size": size}
            found[f"residual, {name}, {through}, {solver} {size}"] = {**FREE, **own}
    for through, size in itertools.product(("classes", "head"), (0.01, 0.03, 0.1)):
        options = fa.ResidualOptions.reference(step_size=size)
        found[f"residual-reference, layer4, {through}, {size}"] = {
            "strategy": "residual", "pivots": ["layer4"], "through": through, "options": options
        }  # fmt: skip
    return found


if __name__ == "__main__":
    typer.run(main)
