"""`feedback-adapter refine`: predictions for photos of which something is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_adapter.cli.clicks import clicked
from feedback_adapter.cli.common import (
    check_place,
    console,
    options_of,
    print_json,
    print_table,
    said,
)
from feedback_adapter.cli.evidence_file import read_rows, rows_of
from feedback_adapter.cli.told import Told, evidence_of
from feedback_adapter.errors import (
    EvidenceError,
    InputError,
    ModelError,
    OptionsError,
    PhotosError,
    SiteError,
)

if TYPE_CHECKING:
    from feedback_adapter.adapter import Adapter
    from feedback_adapter.evidence.base import Evidence
    from feedback_adapter.explain import Explanation
    from feedback_adapter.refinement import Refinement

DEFAULT = "caption-words-lite0"


def refine(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Photos. By default those that the --evidence-file names.",
            readable=False,  # one that isn't must not end the run
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help=f"Name (see: zoo list), folder or hf-hub:owner/name. [default: {DEFAULT}]",
        ),
    ] = None,
    know: Annotated[
        list[str] | None, typer.Option(help="A label that is there. Repeat for more.")
    ] = None,
    know_not: Annotated[
        list[str] | None, typer.Option(help="A label that isn't there. Repeat for more.")
    ] = None,
    know_coarse: Annotated[
        list[str] | None,
        typer.Option(help="A coarse class that the class is one of, e.g. dog; dog|cat for either."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Text from near the photo, which mentions labels.")
    ] = None,
    click: Annotated[
        list[str] | None,
        typer.Option(
            help="A pixel whose label is known, for models that label pixels: x,y=label, or "
            "x,y=-label for what isn't there, in pixels of the photo. Repeat for more."
        ),
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(min=0, help="Pixels of the photo around a --click that have its label, too."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead of a checkpoint: any timm model with ImageNet's classes."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="With --model: a safetensors file; by default timm downloads them."),
    ] = None,
    evidence: Annotated[
        list[str] | None, typer.Option(help="KIND=TEXT, for other kinds (see: plugins).")
    ] = None,
    evidence_file: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file of what is known of each photo: a column 'file', and a column for "
            "each label with 1, 0, -1 (uncertain) or nothing; or columns know, know_not, "
            "know_coarse, text."
        ),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="By default the checkpoint's.")] = None,
    pivots: Annotated[
        list[str] | None, typer.Option(help="A site (see: sites). Repeat for more.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="name=value, for the strategy, e.g. steps=20.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="How many unknown predictions to show.")] = 10,
    batch: Annotated[
        int, typer.Option(min=1, help="How many photos are in memory at a time.")
    ] = 16,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    save_plot: Annotated[
        Path | None,
        typer.Option(
            help="Write a picture; for several photos, numbered. With --explain, that of the "
            "explanation."
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            help="A label that isn't told: say which evidence moved it, and where in the photo "
            "(needs feedback-adapter\\[explain])."
        ),
    ] = None,
) -> None:
    """Predict labels of photos, knowing some of them."""
    import torch

    from feedback_adapter.explain import can_explain

    photos, others = _per_photo(images, evidence_file)
    clicks = clicked(click or [], radius, photos)
    others += [] if clicks is None else [clicks]
    known = said(know or [], know_not or [], evidence or [], know_coarse, text, others, len(photos))
    options = options_of(option or [])
    if any(not pivot.strip() for pivot in pivots or []):  # it would be the whole network
        raise SiteError("--pivots '' names no site: feedback-adapter sites lists what can be one.")
    chosen = "auto" if pivots == ["auto"] else pivots or None
    pictures = _pictures(save_plot, len(photos))
    adapter = _adapter(checkpoint, model, weights)
    if adapter.transform is None:
        raise ModelError(
            f"{model or checkpoint!r} doesn't say how photos become its input (no transform)."
        )
    known.bind(adapter.outputs, len(photos))  # mistakes are found before photos are read
    if explain is not None:
        can_explain(adapter.outputs, explain)
    described: list[dict[str, Any]] = [{"file": str(photo)} for photo in photos]
    unread: dict[int, InputError] = {}
    unexplained = 0
    try:
        for rows, images_read in adapter.transform.batches(photos, batch):
            result = adapter.refine(
                images_read, known.take(torch.tensor(rows)),
                strategy=strategy, pivots=chosen, explainable=explain is not None, **options,
            )  # fmt: skip
            if isinstance(chosen, list) and not result.pivots:
                raise OptionsError(
                    f"--pivots {chosen[0]!r} says nothing to the strategy {result.strategy!r}, "
                    "which moves no pivots: leave it out, or name another strategy, such as "
                    "--strategy newton."
                )
            entries = result.to_dict(top)["images"] if json else [{}] * len(rows)
            for index, row in enumerate(rows):
                described[row] |= entries[index]
                if not json:
                    print_table(result.rich_table(top, index, title=str(photos[row])))
                why = None
                if explain is not None:
                    why = _explained(result, explain, index, described[row], json=json)
                    unexplained += why is None
                if pictures:
                    why.plot(pictures[row]) if why else result.plot(pictures[row], image=index)
                    if not json:
                        console.print(f"Picture: {pictures[row]}", markup=False, soft_wrap=True)
    except PhotosError as error:  # the others are done
        unread = error.unread
        if len(unread) == len(photos):
            raise unread[0] from error
    if json:
        for row, error in unread.items():
            described[row]["error"] = str(error)
        of = {key: _all_of(described, key) for key in ("strategy", "pivots")}
        print_json(
            {
                "checkpoint": model or checkpoint or DEFAULT,
                "strategy": ", ".join(of["strategy"]),
                "pivots": of["pivots"],
                "images": described,
            }
        )
    if unexplained == len(photos):
        raise EvidenceError(f"{explain!r} is told of every photo, or nothing is known of any.")
    if unread:
        raise PhotosError({row + 1: error for row, error in unread.items()})


def _explained(
    result: Refinement, label: str, index: int, entry: dict[str, Any], *, json: bool
) -> Explanation | None:
    """Explain a label of one photo, or say why that can't be."""
    try:
        why = result.explain(label, index)
    except EvidenceError as error:  # of other photos the label may not be told
        entry["explanation"] = {"error": str(error)}
        if not json:
            console.print(f"No explanation: {error}", markup=False)
        return None
    entry["explanation"] = why.to_dict()
    if not json:
        print_table(why.rich_table(why.heading))
    return why


def _per_photo(images: list[Path] | None, file: Path | None) -> tuple[list[Path], list[Evidence]]:
    """The photos, and what the file says of each."""
    if file is None:
        if not images:
            raise OptionsError("There is no photo: name at least one, or an --evidence-file.")
        return images, []
    rows = read_rows(file)
    photos = images or list(dict.fromkeys(row.photo for row in rows))
    known = [row.told if row else Told() for row in rows_of(photos, rows)]
    return photos, [evidence_of(known)] if any(told != Told() for told in known) else []


def _all_of(described: list[dict[str, Any]], key: str) -> list[str]:
    """The different values, or elements of values, under a key, in their order."""
    values = [entry.get(key, []) for entry in described]
    each = [[value] if isinstance(value, str) else value for value in values]
    return list(dict.fromkeys(item for value in each for item in value))


def _adapter(checkpoint: str | None, model: str | None, weights: Path | None) -> Adapter:
    import feedback_adapter as fa

    if model is None and weights is not None:
        raise OptionsError(f"--weights {str(weights)!r} needs --model, which they are weights of.")
    if model is None:
        return fa.load(DEFAULT if checkpoint is None else checkpoint)
    if checkpoint is not None:
        raise OptionsError(
            f"--checkpoint {checkpoint!r} and --model {model!r}: only one of them can be used."
        )
    return fa.pretrained(model, weights)


def _pictures(place: Path | None, photos: int) -> list[Path]:
    """Where the picture of each photo goes, checked."""
    from feedback_adapter.plotting import check_ending

    if place is None:
        return []
    check_ending(place)
    numbered = [place.with_stem(f"{place.stem}-{i + 1}") for i in range(photos)]
    pictures = [place] if photos == 1 else numbered
    check_place(pictures[0], "--save-plot")
    return pictures
