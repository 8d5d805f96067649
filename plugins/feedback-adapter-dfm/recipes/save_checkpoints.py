"""Checkpoints of networks that the benchmarks trained.

    python recipes/save_checkpoints.py --trained FOLDER --out CHECKPOINTS

FOLDER has what `benchmarks/triangles.py`, `clicks.py` and `camvid.py` wrote.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from camvid_nets import LITE0, SIZE
from camvid_nets import METHODS as SCENES
from methods import SMALL
from safetensors.torch import load_file

import feedback_adapter as fa
from fa_dfm import DFM
from fa_dfm.checkpoints import LIBRARY, build

__all__ = ["CHECKPOINTS", "Trained", "adapter_of", "main"]

CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
    *("pedestrian", "bicyclist"),
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """One network of a table.

    Args:
        table: The table's name.
        method: The method's name there.
        summary: One line for lists.
        conditions: Rows of the table whose scores are on the card.
    """

    table: str
    method: str
    summary: str
    conditions: tuple[str, ...]

    @property
    def weights(self) -> str:
        """Name of the file with its weights, of seed 0."""
        size = "" if self.table == "camvid" else "-48"
        return f"{self.table}-{self.method}{size}-0.safetensors"


_ONE = ("48 px, sigma 2", "48 px, sigma 2, 1% of pixels known", "48 px, sigma 3")
_TWO = ("48 px, sigma 1, nothing known", "48 px, sigma 1, one click")
_ROAD = ("nothing known", "1% of pixels", "3 clicks")
CHECKPOINTS = {
    "triangles-dfm": Trained(
        "triangles", "loop", "A white triangle under noise, 48 x 48; looks six times.", _ONE
    ),
    "triangles-feedforward": Trained(
        "triangles", "feedforward", "The control of triangles-dfm; looks once.", _ONE
    ),
    "triangles-clicks-dfm": Trained(
        "clicks",
        "loop",
        "Which of two triangles a click means, 48 x 48, under noise; looks six times.",
        _TWO,
    ),
    "triangles-clicks-feedforward": Trained(
        "clicks", "feedforward", "The control of triangles-clicks-dfm; looks once.", _TWO
    ),
    "camvid-dfm": Trained(
        "camvid", "loop", "Each pixel of a street scene is one of 11 classes; looks 4 times.", _ROAD
    ),
    "camvid-feedforward": Trained(
        "camvid", "feedforward", "The control of camvid-dfm, better than it; looks once.", _ROAD
    ),
}


def adapter_of(name: str, trained: Path) -> fa.Adapter:
    """The adapter that a checkpoint is made of.

    Args:
        name: A key of `CHECKPOINTS`.
        trained: Folder of what was trained.
    """
    what = CHECKPOINTS[name]
    scenes = what.table == "camvid"
    net, kwargs = _network(what)
    net.load_state_dict(_renamed(load_file(trained / what.table / "weights" / what.weights), net))
    labels = CAMVID if scenes else ("triangle",)
    transform = fa.Transform(SIZE, "lanczos", (0.5,) * 3, (0.5,) * 3) if scenes else None
    adapter = fa.wrap(net.eval(), labels=labels, kind="map", transform=transform)
    adapter.defaults = fa.Defaults(pivots=("feedback",))  # what is added behind the first layer
    architecture = fa.Architecture(LIBRARY, LITE0 if scenes else "small-view", kwargs)
    metrics = _scores(what, trained)
    adapter.card = fa.Card(
        name,
        what.summary,
        data=_DATA["camvid" if scenes else "triangles"],
        training=_training(what),
        metrics={"test": metrics},
        license=_LICENSE["camvid" if scenes else "triangles"],
        architecture=architecture,
        text=_page(name, what, metrics),
    )
    return adapter


def _network(what: Trained) -> tuple[DFM, dict[str, Any]]:
    """A network, and the arguments from which the plugin builds it."""
    if what.table == "camvid":
        scene = SCENES[what.method]
        kwargs: dict[str, Any] = {
            "loop": scene.stage,
            "head": {"channels": scene.channels, "labels": len(CAMVID), "blocks": scene.blocks},
            "image_size": list(SIZE),
            "steps": scene.looks,
            "hidden": scene.hidden,
        }
        return build(LITE0, kwargs), kwargs
    method = SMALL[what.method]
    kwargs = {
        "hidden": method.hidden,
        "steps": method.looks,
        "kind": "multilabel",
        "image_size": [48, 48],
    }
    return build(method.net, kwargs), kwargs


def _renamed(state: dict[str, Any], net: DFM) -> dict[str, Any]:
    """Weights that were written before the end of the loop was a module of its own."""
    own = net.state_dict()
    renamed = {name.replace(".blocks.2.", ".blocks.2.inner."): v for name, v in state.items()}
    return state if state.keys() == own.keys() else renamed


def _scores(what: Trained, trained: Path) -> dict[str, float]:
    lines = (trained / what.table / f"{what.table}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        f"{row['metric']}, {row['condition']}": round(row["value"], 2)
        for row in rows
        if row["method"] == what.method
        and row["seed"] == 0
        and row["condition"] in what.conditions
        and row["metric"] in ("IoU", "mIoU")
    }


def _training(what: Trained) -> dict[str, Any]:
    looks = (SCENES if what.table == "camvid" else SMALL)[what.method].looks
    steps = {"triangles": 1000, "clicks": 1200, "camvid": 2500}[what.table]
    return {
        "recipe": f"plugins/feedback-adapter-dfm/benchmarks/{what.table}.py",
        "method": what.method,
        "steps at most": steps,
        "looks": looks,
        "seed": 0,
        "machine": "NVIDIA H100 80GB HBM3, shared with other trainings, which cut it short",
        "versions": {"torch": "2.11.0+cu130", "timm": "1.0.29"},
    }


_DATA = {
    "triangles": {"source": "triangles", "images": {"train": 16, "test": 400}},
    "camvid": {
        "source": "camvid",
        "images": {"train": 367, "val": 101, "test": 233},
        "citation": "G. Brostow, J. Fauqueur, R. Cipolla: Semantic object classes in video: a "
        "high-definition ground truth database. Pattern Recognition Letters, 2009.",
    },
}
_LICENSE = {
    "triangles": "None is needed: the images are generated.",
    "camvid": "CamVid: research and education only; its masks and frames as of the SegNet tutorial "
    "are CC BY-NC 4.0",
}


def _page(name: str, what: Trained, metrics: dict[str, float]) -> str:
    use = (
        f"    feedback-adapter refine frame.jpg -c {name} --click 120,90=car --save-plot out.png"
        if what.table == "camvid"
        else f"    adapter = feedback_adapter.load({name!r})\n"
        "    adapter.refine(images, feedback_adapter.Pixels(clicks=[(20, 31, 'triangle')]))"
    )
    kind = "mean IoU" if what.table == "camvid" else "foreground IoU"
    rows = "\n".join(
        f"| {key.partition(', ')[2]} | {value:.1f} |" for key, value in metrics.items()
    )
    return f"""# {name}

{what.summary} Known pixels enter by channels of their own (feedback-adapter-dfm).

{use}

Scores on test images: {kind} in percent of the pixels that aren't known. The networks are one of
several seeds, and their trainings were cut short. The page on deep feedback models has the tables,
with standard deviations and controls; read it before you choose between this and its control.

| known | {kind} |
| --- | --- |
{rows}

**Licence of the data**: {_LICENSE["camvid" if what.table == "camvid" else "triangles"]}
"""


def main(
    trained: Annotated[Path, typer.Option(help="Folder of what the benchmarks wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoints.")],
    names: Annotated[list[str] | None, typer.Argument(help="Checkpoints; by default all.")] = None,
) -> None:
    """Write checkpoints."""
    for name in names or CHECKPOINTS:
        folder = adapter_of(name, trained).save(out / name)
        typer.echo(f"{name}: {sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB")


if __name__ == "__main__":
    typer.run(main)
