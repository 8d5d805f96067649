"""What the CNN-F recipes share beside training: data, scores, the checkpoint, the command."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from cnnf_settings import Settings, build
from cnnf_training import MODES, Stepper, fabric_for, fit
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fa_cnnf
from fa_cnnf.checkpoints import LIBRARY
from fa_cnnf.data import DEV, SOURCES, Images, read_splits, to_input
from fa_cnnf.data.cifar10 import PACKED
from feedback_adapter.checkpoint import write_folder

ITERATIONS = (0, 1, 2, 5, 10)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A checkpoint to train.

    Args:
        name: Of the checkpoint.
        script: The recipe's file, relative to the repository.
        summary: One line.
        data: `"fashion"` or `"cifar10"`.
        settings: How it is trained.
    """

    name: str
    script: str
    summary: str
    data: str
    settings: Settings


def accuracies(model: fa_cnnf.CNNF, data: Images, batch: int = 500) -> dict[str, float]:
    """Accuracy in percent at each of `ITERATIONS` ("0", "1", ...), and of their mean ("avg").

    "avg" reads out the mean of the logits of iterations 0 to T of training, as published.
    """
    largest = max(ITERATIONS)
    hits = torch.zeros(largest + 2, dtype=torch.long, device=data.labels.device)
    with torch.inference_mode():
        for images, labels in zip(data.images.split(batch), data.labels.split(batch), strict=True):
            logits = model.unroll(to_input(images), largest).logits
            average = logits[: model.steps + 1].mean(0, keepdim=True)
            hits += (torch.cat([logits, average]).argmax(-1) == labels).sum(1)
    percent = (100 * hits.double() / len(data)).tolist()
    return {str(t): round(percent[t], 2) for t in ITERATIONS} | {"avg": round(percent[-1], 2)}


def round_to_half(model: fa_cnnf.CNNF) -> None:
    """Round the weights to float16's values, in place: what is scored is what is kept."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())


LICENSES = {
    "fashion": "MIT (Fashion-MNIST, Zalando SE, 2017)",
    "cifar10": "none stated (CIFAR-10, A. Krizhevsky, 2009)",
}
CITATIONS = {
    "fashion": "H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv 1708.07747, 2017.",
    "cifar10": "A. Krizhevsky: Learning multiple layers of features from tiny images, 2009.",
}


def write(
    folder: Path,
    recipe: Recipe,
    model: fa_cnnf.CNNF,
    training: dict[str, Any],
    scores: dict[str, Any],
) -> dict[str, Any]:
    """Write feedback_adapter.json, model.safetensors (float16) and README.md.

    Args:
        folder: Made if it isn't there.
        recipe: What the checkpoint is; its settings are those it was trained with.
        model: Trained, rounded by `round_to_half`.
        training: How the run went: seed, epochs (as run), seconds, machine, versions; "note"
            goes into the card.
        scores: Of `accuracies`, for "dev" and "test".

    Returns:
        What feedback_adapter.json holds.
    """
    weights = {k: v.half().cpu().contiguous() for k, v in model.state_dict().items()}
    settings = recipe.settings
    # The strategy cnnf works at the net's own site: naming a pivot saves the search for one.
    refine = {"strategy": "cnnf", "pivots": ["input"], "options": {"steps": settings.steps}}
    config = {
        "name": recipe.name,
        "summary": recipe.summary,
        "architecture": {
            "library": LIBRARY,
            "model": settings.net,
            "kwargs": settings.architecture(),
        },
        "outputs": {"output": {"kind": "multiclass", "labels": list(SOURCES[recipe.data].CLASSES)}},
        "transform": None,
        "refine": refine,
        "data": {"source": recipe.data, "citation": CITATIONS[recipe.data]},
        "training": {"recipe": recipe.script, **dataclasses.asdict(settings), **training},
        "metrics": scores,
        "license": LICENSES[recipe.data],
    }
    return write_folder(
        folder, config, weights, weights={"dtype": "float16"}, text=_card(recipe, config)
    )


def _card(recipe: Recipe, config: dict[str, Any]) -> str:
    s, training, scores = recipe.settings, config["training"], config["metrics"]
    classes = SOURCES[recipe.data].CLASSES
    shown = [t for t in scores["test"] if s.steps or t == "0"]
    rows = "\n".join(
        f"| {split} | {' | '.join(f'{values[t]:.2f}' for t in shown)} |"
        for split, values in scores.items()
    )
    how = (
        f"on PGD-{s.attack_steps} images (eps {s.eps:.4g}, step {s.attack_step:.4g} in [0, 1] "
        f"units, random start, first pass) with {s.clean_weight:g} x the clean images' loss"
        if s.adversarial
        else "on clean images"
    )
    loop = (
        f"feedback from the logits to `{s.site}`, T = {s.steps}, eta = {s.step_size:g}, "
        f"reconstruction weight {s.mse_weight:g}"
        if s.steps
        else "a feedforward control: no feedback in training; run it at iteration 0"
    )
    options = f"--epochs {training['epochs']}"
    if "start" in training:
        options += f" --start {training['start']}"
    columns = " | ".join("avg" if t == "avg" else f"iteration {t}" for t in shown)
    return f"""# {recipe.name}

{recipe.summary}

- **Network**: `fa_cnnf`'s `{s.net}`, {loop}.
- **Input**: {"28 x 28 grey" if recipe.data == "fashion" else "32 x 32 RGB"}, values in [-1, 1].
- **Output**: one of {len(classes)} classes: {", ".join(classes)}.
- **Weights**: float16; the scores are after that rounding.
- **Load**: the plugin feedback-adapter-cnnf builds the net:

      import fa_cnnf
      adapter = fa_cnnf.load("{recipe.name}")

## Data

{config["data"]["citation"]} The official splits; {DEV:,} of the training images (after a shuffle
with seed 0) are the dev split and not trained on. No choice was made on test images.

**Licence**: {config["license"]}

## Scores

Clean accuracy in percent. "avg" is the mean of the logits of iterations 0 to {s.steps}.
Accuracies under attack are in plugins/feedback-adapter-cnnf/docs/cnnf-report.md: read that
before you rely on any robustness.

| split | {columns} |
| --- |{" --- |" * len(shown)}
{rows}

## Training

{training["epochs"]} passes {how}; batch {s.batch}, SGD {s.lr:g} falling to 0 as
(1 - done)^{s.power:g}, momentum {s.momentum:g}, weight decay {s.weight_decay:g}, gradients clipped
to {s.clip:g}. Seed {training["seed"]}; {training["seconds"]:.1f} seconds on {training["machine"]}.
{training.get("note", "")}The weights are the last ones.

    python {recipe.script} --name {recipe.name} --data DATA --out OUT {options}

Every setting is in `feedback_adapter.json` under "training".
"""


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    seed: int = 1,
    accelerator: str = "auto",
    mode: str = "auto",
    seconds: float = 0.0,
    limit: int = 0,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train a checkpoint and write it; a run that was cut off goes on.

    Args:
        recipe: What to train.
        data: The folder of the images.
        out: The checkpoint's folder; the state of the run is in its `state/`.
        seed: Of everything random.
        accelerator: "auto", "cpu" or "cuda".
        mode: One of `MODES`, or "auto": a CUDA graph on a GPU, else eager.
        seconds: Time limit; the schedule is shortened to end within it. 0 for none.
        limit: Use at most so many images a split, to try a recipe out; 0 for all.
        start: A checkpoint's folder: its weights are where training starts.
    """
    console = Console()
    fabric = fabric_for(accelerator)
    if mode == "auto":
        mode = "graph" if fabric.device.type == "cuda" else "eager"
    parts = [part.to(fabric.device) for part in read_splits(recipe.data, data)]
    train, dev, test = [part.take(slice(limit)) if limit else part for part in parts]
    model = build(recipe.settings).to(fabric.device)
    stepper = Stepper(model, train, recipe.settings, mode)
    stepper.prepare()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("training", total=recipe.settings.epochs)

        def report(entry: dict[str, Any]) -> None:
            bar.update(task, completed=entry["epoch"], description=f"loss {entry['loss']:.4f}")

        progress = fit(
            stepper,
            seed=seed,
            epochs=recipe.settings.epochs,
            seconds=seconds,
            state_file=out / "state" / "run.safetensors",
            start=None if start is None else start / "model.safetensors",
            report=report,
        )
    round_to_half(model)
    scores = {"dev": accuracies(model, dev), "test": accuracies(model, test)}
    training = {
        "seed": seed,
        "epochs": progress.epochs,
        "seconds": round(progress.seconds, 1),
        "mode": mode,
        "machine": torch.cuda.get_device_name() if fabric.device.type == "cuda" else "CPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    notes: list[str] = []
    if start is not None:
        training["start"] = start.name
        notes.append(f"Training started from the weights of {start.name}. ")
    if recipe.data == "cifar10" and (data / PACKED).is_file():
        notes.append("All images were JPEGs of quality 75 (PSNR about 30 dB). ")
    training["note"] = "".join(notes)
    config = write(out, recipe, model, training, scores)
    console.print(f"{recipe.name} is in {out}: accuracy by iteration {scores['test']}")
    return config


def command(recipes: dict[str, Recipe]) -> None:
    """Train one of some checkpoints from the command line."""
    first = next(iter(recipes.values()))

    def main(
        data: Annotated[Path, typer.Option(help="Folder of the images.")],
        out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
        name: Annotated[str, typer.Option(help="Which checkpoint; `?` lists them.")] = first.name,
        epochs: Annotated[int, typer.Option(min=0, help="Passes; 0: the recipe's.")] = 0,
        seconds: Annotated[float, typer.Option(min=0, help="Time limit; 0: none.")] = 0.0,
        net: Annotated[str, typer.Option(help="Another net, as fashion or wrn-16-2.")] = "",
        seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
        accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
        mode: Annotated[str, typer.Option(help=f"auto, {', '.join(MODES)}.")] = "auto",
        limit: Annotated[int, typer.Option(min=0, help="Use so many images a split.")] = 0,
        start: Annotated[
            Path | None, typer.Option(help="Folder of the checkpoint to start from.")
        ] = None,
    ) -> None:
        if name not in recipes:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(recipes)}.")
        if mode not in (*MODES, "auto"):
            raise typer.BadParameter(f"{mode!r} is none of auto, {', '.join(MODES)}.")
        recipe = recipes[name]
        settings = recipe.settings
        changes = {k: v for k, v in (("epochs", epochs), ("net", net)) if v}
        recipe = dataclasses.replace(recipe, settings=dataclasses.replace(settings, **changes))
        run(
            recipe,
            data,
            out,
            seed=seed,
            accelerator=accelerator,
            mode=mode,
            seconds=seconds,
            limit=limit,
            start=start,
        )

    main.__doc__ = f"Train {' or '.join(recipes)}."
    typer.run(main)
