"""How good is the site that `Adapter.choose_pivots` chooses, against all sites tried on dev?

On caption-words-lite0: half of the words may be known (all of them are given), the other half is
scored (the partial-labels protocol). `choose_pivots` sees the known half only; the exhaustive
search tries the same settings at every site and looks at the unknown half's mean average
precision (mAP), which nobody could who doesn't know the answers.

    python benchmarks/choose_pivots.py --data FOLDER    # with flickr8k in it

Sites whose tail is long are searched on the first images of dev only (`images` in the JSON); what
is compared is always the gain on the same images. Finished parts are kept in the JSON, so that
the run can go on where it was stopped.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import feedback_adapter as fa
from fa_evaluate.metrics import mean_average_precision
from fa_evaluate.passes import unrefined_logits
from fa_evaluate.protocols.partial_labels import PartialLabels
from fa_evaluate.request import Request
from feedback_adapter.batches import split
from feedback_adapter.pivot_search import Trial

CHECKPOINT = "caption-words-lite0"
SITES = ("global_pool", "conv_head", "blocks.6", "blocks.5", "blocks.4", "blocks.3")
SIZES = (30.0, 10.0, 3.0)
STEPS = 10
BATCH = 64


class Half:
    """A split with half of the words known.

    Args:
        data: Folder with flickr8k.
        split: dev or test.
        limit: The first so many photos only.
    """

    def __init__(self, data: Path, split: str = "dev", limit: int | None = None) -> None:
        request = Request.of(CHECKPOINT, data / "flickr8k", split=split, limit=limit)
        labelled = request.labelled()
        self.adapter, self.photos = request.adapter, request.photos(labelled)
        self.truth = torch.from_numpy(labelled.targets)
        protocol = PartialLabels(known=[100])
        labels = self.truth.shape[1]
        self.unknown = protocol.halves(labels)[1]
        self.known = torch.from_numpy(next(iter(protocol.masks(labels, 100))))

    @functools.cached_property
    def logits(self) -> torch.Tensor:
        """(N, labels), the unrefined model's."""
        return torch.from_numpy(unrefined_logits(self.adapter, self.photos))

    def evidence(self, rows: torch.Tensor) -> fa.Evidence:
        return fa.Labels.from_tensors(self.truth[rows], self.known)

    def score(self, logits: torch.Tensor) -> float:
        truth = self.truth[: len(logits), self.unknown].numpy() > 0
        return mean_average_precision(logits[:, self.unknown].numpy(), truth)

    def gains(self, site: str, sizes: Sequence[float], images: int) -> dict[float, list[float]]:
        """What mAP gains after 1, 2, ... steps of each size, on the first images."""
        traces: dict[float, list[torch.Tensor]] = {size: [] for size in sizes}
        for rows in split(images, BATCH):
            prepared = self.adapter.prepare(self.photos[rows], pivots=site)
            for size in sizes:
                result = self.adapter.refine(
                    prepared, self.evidence(rows), strategy="residual", step_size=size,
                    steps=STEPS, patience=None, keep="last", trace=True,
                )  # fmt: skip
                assert result.trace is not None, "it was asked for"
                traces[size].append(result.trace["output"])
        unrefined = self.score(self.logits[:images])
        return {
            size: [round(self.score(logits) - unrefined, 3) for logits in torch.cat(own, 1)[1:]]
            for size, own in traces.items()
        }

    def choice(self, sites: list[str], images: int, seed: int) -> dict[str, Any]:
        """What `choose_pivots` chooses, from the known half of the first images."""
        rows = torch.arange(images)
        choice = self.adapter.choose_pivots(
            self.photos[rows], self.evidence(rows), pivots=sites, steps=STEPS, seed=seed,
            batch=BATCH,
        )  # fmt: skip
        best: dict[str, Trial] = {}
        for trial in reversed(choice.trials):
            best[trial.pivot] = trial
        got = choice.chosen
        return {
            "sites": sites, "images": images, "seed": seed, "criterion": choice.criterion,
            "pivot": got.pivot, "step_size": got.step_size, "steps": got.steps,
            "hidden_gain": {site: round(t.gain, 3) for site, t in best.items()},
            "behind_in_errors": {
                site: round((choice.trials[0].gain - t.gain) / max(t.error, 1e-9), 2)
                for site, t in best.items()
            },
            "seconds": round(choice.seconds, 1),
        }  # fmt: skip


def main(
    data: Annotated[Path, typer.Option(help="Folder with flickr8k.")],
    search: Annotated[list[str] | None, typer.Option(help="SITE=IMAGES to search.")] = None,
    sizes: Annotated[list[float] | None, typer.Option(help="Step sizes to search.")] = None,
    choose: Annotated[list[str] | None, typer.Option(help="SITE,SITE,...=IMAGES.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Of what is hidden.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path("docs/results/choose-pivots.json"),
) -> None:
    """Search, choose, compare; write and print."""
    content: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    content |= {
        "checkpoint": CHECKPOINT, "split": "dev",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
    }  # fmt: skip
    searched, choices = content.setdefault("search", []), content.setdefault("choices", [])
    dev = Half(data)
    whole = len(dev.truth)
    content["unrefined_map"] = round(dev.score(dev.logits), 3)
    if search is None:
        search = [f"{site}={whole}" for site in SITES]
    for site, images in map(_named, search):
        wanted = [
            size
            for size in sizes or SIZES
            if not any(
                {"site": site, "step_size": size, "images": images}.items() <= row.items()
                for row in searched
            )
        ]
        for size, gains in dev.gains(site, wanted, images).items() if wanted else ():
            searched.append({"site": site, "step_size": size, "images": images, "gains": gains})
            print(searched[-1], flush=True)
        _write(out, content)
    if choose is None:
        choose = [f"{','.join(SITES)}={whole}"]
    for names, images in map(_named, choose):
        for seed in seeds or (0, 1, 2):
            key = {"sites": names.split(","), "images": images, "seed": seed}
            if not any(key.items() <= row.items() for row in choices):
                choices.append(dev.choice(names.split(","), images, seed))
                _write(out, content)
                print(choices[-1], flush=True)
    for row in choices:
        row |= _margins(row["pivot"], searched)
        print(row["images"], row["seed"], row["pivot"], row["margin_by_images"], row["seconds"])
    _write(out, content)


def _named(text: str) -> tuple[str, int]:
    names, _, images = text.partition("=")
    return names, int(images)


def _margins(pivot: str, searched: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the chosen site's best is below the best of all sites searched on those images."""
    margins: dict[str, float] = {}
    for images in sorted({row["images"] for row in searched}):
        best = {
            site: max(
                max(row["gains"])
                for row in searched
                if row["site"] == site and row["images"] == images
            )
            for site in {row["site"] for row in searched if row["images"] == images}
        }
        if pivot in best:
            margins[str(images)] = round(max(best.values()) - best[pivot], 3)
    return {"margin_by_images": margins}


def _write(out: Path, content: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
