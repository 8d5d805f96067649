"""Checkpoints of networks that the benchmarks trained.

    python recipes/save_checkpoints.py --trained FOLDER --out CHECKPOINTS

FOLDER/TABLE is the `--out` of `benchmarks/TABLE.py`, for the tables triangles, clicks, camvid and
cifar10.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer
from camvid_nets import LITE0, SIZE
from camvid_nets import METHODS as SCENES
from cifar10_task import MEAN, STD
from cifar10_task import METHODS as PHOTOS
from methods import SMALL, Method
from safetensors.torch import load_file

import feedback_adapter as fa
from fa_dfm import DFM
from fa_dfm.checkpoints import LIBRARY, build

__all__ = ["CHECKPOINTS", "Trained", "adapter_of", "main"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the checkpoints of one table share.

    Args:
        labels: What is predicted.
        kind: Of the output.
        metric: Its name in the table, and for readers.
        data: Of the card.
        license: Of the data.
        training: How long the trainings were.
        note: For readers, how far the trainings were.
        transform: How a photo becomes the input.
        side: Of the images, where that is part of the names of files.
    """

    labels: tuple[str, ...]
    kind: str
    metric: tuple[str, str]
    data: dict[str, Any]
    license: str
    training: dict[str, int]
    note: str
    transform: fa.Transform | None = None
    side: str = ""


_DRAWN = Kind(
    ("triangle",),
    "map",
    ("IoU", "foreground IoU in percent of the pixels that aren't known"),
    {"source": "triangles", "images": {"train": 16, "validation": 200, "test": 400}},
    "None is needed: the images are generated.",
    {"steps": 1000},
    "Of three networks with different seeds this is the first.",
    side="-48",
)
KINDS = {
    "triangles": _DRAWN,
    "clicks": dataclasses.replace(_DRAWN, training={"steps": 1200}),
    "camvid": Kind(
        (
            *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
            *("pedestrian", "bicyclist"),
        ),
        "map",
        ("mIoU", "mean IoU in percent of the pixels that aren't known"),
        {
            "source": "camvid",
            "images": {"train": 367, "val": 101, "test": 233},
            "citation": "G. Brostow, J. Fauqueur, R. Cipolla: Semantic object classes in video: a "
            "high-definition ground truth database. Pattern Recognition Letters, 2009.",
        },
        "CamVid: research and education only; its masks and frames as of the SegNet tutorial are "
        "CC BY-NC 4.0",
        {"steps at most": 2500, "seconds at most": 200},
        "It had at most 200 seconds of a GPU that 16 trainings shared, and its learning rate fell "
        "to the end in that time: longer trainings may be better.",
        fa.Transform(SIZE, "lanczos", (0.5,) * 3, (0.5,) * 3),
    ),
    "cifar10": Kind(
        (
            *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"),
            "truck",
        ),
        "multiclass",
        ("accuracy", "accuracy in percent"),
        {
            "source": "cifar10",
            "images": {"train": 50000, "test": 10000},
            "citation": "A. Krizhevsky: Learning multiple layers of features from tiny images, "
            "2009.",
        },
        "none stated (CIFAR-10, A. Krizhevsky, 2009)",
        {"passes": 20},
        "Its training took 200 seconds of a GPU that 16 trainings shared; well trained networks of "
        "this size reach 90%. All images were JPEGs of quality 75.",
        fa.Transform((32, 32), "bicubic", (MEAN,) * 3, (STD,) * 3),
    ),
}
"""By table."""


_FURTHER = {"camvid": {"steps": 300, "batch": 4}, "cifar10": {"passes": 0.5, "batch": 128}}
"""How long those networks were trained that started from their control, by table."""

_FEEDBACK = fa.Defaults(pivots=("feedback",))
"""The network's own strategy; the pivot, for others, is what enters behind the first layer."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """One network of a table.

    Args:
        table: The table's name.
        method: The method's name there.
        summary: One line for lists.
        conditions: Rows of the table whose scores are on the card.
        refine: What the checkpoint does where nothing else is said.
        control: The checkpoint whose weights it started from; `None`: it was trained as a whole.
    """

    table: str
    method: str
    summary: str
    conditions: tuple[str, ...]
    refine: fa.Defaults = _FEEDBACK
    control: str | None = None

    @property
    def weights(self) -> str:
        """Name of the file with its weights, of seed 0."""
        return f"{self.table}-{self.method}{KINDS[self.table].side}-0.safetensors"

    @property
    def looks(self) -> int:
        """How often it looks."""
        return {"camvid": SCENES, "cifar10": PHOTOS}.get(self.table, SMALL)[self.method].looks


_ONE = ("48 px, sigma 2", "48 px, sigma 2, 1% of pixels known", "48 px, sigma 3")
_TWO = ("48 px, sigma 1, nothing known", "48 px, sigma 1, one click")
_ROAD = ("nothing known", "1% of pixels", "3 clicks")
_PHOTO = ("clean", "noise .1")
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
        "camvid",
        "loop",
        "Each pixel of a street scene is one of 11 classes; looks 4 times.",
        _ROAD,
        fa.Defaults("newton", ("input",), {"prior_std": 128.0}),  # see results/known_pixels.json
        control="camvid-feedforward",
    ),
    "camvid-feedforward": Trained(
        "camvid",
        "feedforward",
        "The control of camvid-dfm; looks once.",
        _ROAD,
        fa.Defaults("newton", ("feedback",), {"prior_std": 32.0}),  # see results/known_pixels.json
    ),
    "cifar10-dfm": Trained(
        "cifar10",
        "loop",
        "One of ten kinds of animals and vehicles in a 32 x 32 image; a ResNet-20 that looks 4 "
        "times.",
        _PHOTO,
        control="cifar10-feedforward",
    ),
    "cifar10-feedforward": Trained(
        "cifar10", "feedforward", "The twin of cifar10-dfm; looks once.", _PHOTO
    ),
}


def adapter_of(name: str, trained: Path) -> fa.Adapter:
    """The adapter that a checkpoint is made of.

    Args:
        name: A key of `CHECKPOINTS`.
        trained: Folder of what was trained.
    """
    what = CHECKPOINTS[name]
    kind = KINDS[what.table]
    net, model, kwargs = _network(what)
    net.load_state_dict(load_file(trained / what.table / "weights" / what.weights))
    adapter = fa.wrap(net.eval(), labels=kind.labels, kind=kind.kind, transform=kind.transform)
    adapter.defaults = what.refine
    metrics = _scores(what, trained)
    adapter.card = fa.Card(
        name,
        what.summary,
        data=kind.data,
        training=_training(what, trained),
        metrics={"test": metrics},
        license=kind.license,
        architecture=fa.Architecture(LIBRARY, model, kwargs),
        text=_page(name, what, metrics),
    )
    return adapter


def _network(what: Trained) -> tuple[DFM, str, dict[str, Any]]:
    """A network, and the name and the arguments from which the plugin builds it."""
    if what.table == "camvid":
        scene = SCENES[what.method]
        kwargs: dict[str, Any] = {
            "loop": scene.stage,
            "head": {
                "channels": scene.channels,
                "labels": len(KINDS["camvid"].labels),
                "blocks": scene.blocks,
            },
            "image_size": list(SIZE),
            "steps": scene.looks,
            "hidden": scene.hidden,
        }
        return build(LITE0, kwargs), LITE0, kwargs
    photos = what.table == "cifar10"
    method: Method = (PHOTOS if photos else SMALL)[what.method]
    kwargs = {"hidden": method.hidden, "steps": method.looks}
    if photos:
        kwargs |= {"net": method.options, "image_size": [32, 32]}
    else:
        kwargs |= {"kind": "multilabel", "image_size": [48, 48]}
    return build(method.net, kwargs), method.net, kwargs


def _scores(what: Trained, trained: Path) -> dict[str, float]:
    metric = KINDS[what.table].metric[0]
    (file,) = (trained / what.table / "parts").glob(f"{what.table}-{what.method}-0-*.json")
    found = {
        row["condition"]: row["value"]
        for row in json.loads(file.read_text())
        if row["method"] == what.method and row["metric"] == metric
    }
    return {f"{metric}, {name}": round(found[name], 2) for name in what.conditions}


def _training(what: Trained, trained: Path) -> dict[str, Any]:
    table = json.loads((trained / what.table / f"{what.table}.json").read_text())
    length = (
        {"start": what.control, **_FURTHER[what.table]}
        if what.control
        else KINDS[what.table].training
    )
    return {
        "recipe": f"plugins/feedback-adapter-dfm/benchmarks/{what.table}.py",
        "method": what.method,
        **length,
        "looks": what.looks,
        "seed": 0,
        "machine": table["machine"],
        "versions": {name: table["versions"][name] for name in ("torch", "timm")},
    }


def _page(name: str, what: Trained, metrics: dict[str, float]) -> str:
    kind = KINDS[what.table]
    use = {
        "camvid": f"    feedback-adapter refine frame.jpg -c {name} --click 120,90=car "
        "--save-plot out.png",
        "cifar10": f"    feedback-adapter refine cat.jpg -c {name} --know-not dog "
        "--save-plot out.png",
    }.get(
        what.table,
        f"    adapter = feedback_adapter.load({name!r})\n"
        "    adapter.refine(images, feedback_adapter.Pixels(clicks=[(20, 31, 'triangle')]))",
    )
    rows = "\n".join(
        f"| {key.partition(', ')[2]} | {value:.1f} |" for key, value in metrics.items()
    )
    told = "" if what.table == "cifar10" else " Known pixels enter by channels of their own."
    if what.refine.strategy is not None:
        told = (
            f" By default {what.refine.strategy} refines what it predicts, which gains more from "
            "known pixels than its own channels for them (the strategy dfm, of which the scores "
            "below are)."
        )
    about = textwrap.fill(
        f"{what.summary}{told} The plugin feedback-adapter-dfm makes such networks.", 100
    )
    note = kind.note
    if what.control is not None:
        note = (
            f"It started from {what.control}, and learned in a few minutes on a CPU to look again. "
            "Of three trainings this is the first; the others may score lower."
        )
    scores = textwrap.fill(
        f"Scores on test images: {kind.metric[1]}. {note} The page on deep feedback models "
        "has the tables, with standard deviations and controls; read it before you choose between "
        "this network and another one.",
        100,
        break_on_hyphens=False,
    )
    return f"""# {name}

{about}

{use}

{scores}

| images | {kind.metric[0]} |
| --- | --- |
{rows}

**Licence of the data**: {kind.license}
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
