"""Label cleaning: how many labels that are told wrong are found, and how many found ones are wrong.

    python benchmarks/label_doubt.py --data DATA [caption-words-lite0] [coco80-lite0]

All labels of the known half of `PartialLabels` are told, some of them wrong: turned round at
random, or left out (told absent where they hold). Doubts are compared with ranking labels by their
loss. Where labels are turned round, the share of wrong ones is also estimated from batches of 64
images, and compared with the share that really is wrong in each batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from sklearn.metrics import average_precision_score

import feedback_adapter as fa
from fa_evaluate.passes import unrefined_logits
from fa_evaluate.protocols.partial_labels import PartialLabels
from fa_evaluate.request import Request

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = {"caption-words-lite0": "flickr8k", "coco80-lite0": "coco6k"}
MISTAKES = {"turned round": (0, 5, 10, 20), "left out": (10, 30, 50)}
SPLITS = 3
BATCH = 64


def main(
    checkpoints: Annotated[list[str] | None, typer.Argument()] = None,
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")] = Path("data"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "label-doubt.json",
) -> None:
    """Measure, write the rows, and print them as a table."""
    rows = []
    for name in checkpoints or FOLDERS:
        request = Request.of(name, data / FOLDERS[name], split=split)
        labelled = request.labelled()
        logits = torch.from_numpy(unrefined_logits(request.adapter, request.photos(labelled)))
        adapter = fa.Adapter(
            torch.nn.Identity(), request.adapter.outputs, priors=request.adapter.priors
        )
        for kind, shares in MISTAKES.items():
            for share in shares:
                for number in range(SPLITS):
                    found = measure(adapter, logits, labelled.targets, kind, share, number)
                    rows += [{"checkpoint": name, "split": number, **row} for row in found]
    out.write_text(json.dumps({"split": split, "rows": rows}, indent=1) + "\n")
    show(rows)


def measure(
    adapter: fa.Adapter, logits: torch.Tensor, truth: np.ndarray, kind: str, share: int, number: int
) -> list[dict[str, object]]:
    """One row for each way of estimating how often labels are wrong."""
    protocol = PartialLabels(seed=0)
    may, _ = protocol.halves(truth.shape[1], number)
    flipped = protocol.wrong(truth, share, number)
    said = flipped if kind == "turned round" else flipped & truth
    bad = (said != truth)[:, may]
    known = torch.zeros(truth.shape[1], dtype=torch.bool)
    known[may] = True
    told = torch.from_numpy(said)
    estimates: dict[str, fa.Wrong | None] = {"each image": None}
    for name, apart in (("all images", False), ("all images, apart", True)):
        evidence = fa.Labels.from_tensors(told, known)
        estimates[name] = fa.estimate_wrong(adapter, logits, evidence, apart=apart)
    loss = np.where(said, -logits.numpy(), logits.numpy())[:, may]
    rows = [row_of(kind, share, "loss of the label", loss, bad)]
    for name, wrong in estimates.items():
        evidence = fa.Labels.from_tensors(told, known, wrong=wrong)
        result = adapter.refine(logits, evidence, strategy="posterior", pivots="input")
        doubt = result.doubts["output"][:, may].numpy()
        rows.append(row_of(kind, share, name, doubt, bad, wrong))
        if name == "all images" and kind == "turned round":
            rows[-1] |= off(adapter, logits, told, known, bad)
    return rows


def off(
    adapter: fa.Adapter, logits: torch.Tensor, told: torch.Tensor, known: torch.Tensor,
    bad: np.ndarray,
) -> dict[str, float]:  # fmt: skip
    """How far the estimates from batches of 64 are from the share that is wrong there."""
    errors = []
    for start in range(0, len(told) - BATCH + 1, BATCH):
        rows = slice(start, start + BATCH)
        evidence = fa.Labels.from_tensors(told[rows], known)
        wrong = fa.estimate_wrong(adapter, logits[rows], evidence)
        errors.append(abs(wrong.missed - float(bad[rows].mean())))
    return {"off, mean": float(np.mean(errors)), "off, most": max(errors)}


def row_of(
    kind: str, share: int, method: str, doubt: np.ndarray, bad: np.ndarray,
    wrong: fa.Wrong | None = None,
) -> dict[str, object]:  # fmt: skip
    """Average precision of the ranking; precision and recall of what is doubted."""
    row: dict[str, object] = {"kind": kind, "share": share, "method": method}
    if wrong is not None:
        row |= {"missed": wrong.missed, "invented": wrong.invented}
    if bad.any():
        row["AP"] = 100 * float(average_precision_score(bad.ravel(), doubt.ravel()))
    if method != "loss of the label":
        found = doubt > 0.5
        row["doubted"] = int(found.sum())
        if found.any():
            row["precision"] = 100 * float(bad[found].mean())
        if bad.any():
            row["recall"] = 100 * float(found[bad].mean())
    return row


def show(rows: list[dict[str, object]]) -> None:
    """The means over splits, as a table in Markdown."""
    columns = ("missed", "invented", "off, mean", "off, most", "AP", "precision", "recall")
    print("| checkpoint | mistakes | method |", *(f"{column} |" for column in columns))
    print("| --- | --- | --- |", *("--- |" for _ in columns))
    keys = ("checkpoint", "kind", "share", "method")
    for group in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        own = [row for row in rows if tuple(row[key] for key in keys) == group]
        values = [[row[c] for row in own if c in row] for c in columns]
        cells = [f"{np.mean(v):.3g}" if v else "" for v in values]
        print(f"| {group[0]} | {group[2]}% {group[1]} | {group[3]} |", *(f"{c} |" for c in cells))


if __name__ == "__main__":
    typer.run(main)
