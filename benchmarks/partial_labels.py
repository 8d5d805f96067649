"""Partial labels against baselines, on the same images and the same known sets.

    python benchmarks/partial_labels.py caption-words-lite0 coco80-lite0 --data DATA

DATA holds the folders flickr8k and coco6k. The model runs once over each split (its logits
stay in `--cache`); everything here starts from logits. Rows of the methods that run the
model again (residual, layerwise, their published forms) come from
`feedback-adapter evaluate --protocol partial-labels`. Options were chosen on dev.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from baselines import BASELINES, Task
from baselines.task import sigmoid

import feedback_adapter as fa
from feedback_adapter import data as readers
from feedback_adapter.checkpoint import find, read_config
from feedback_adapter.prior import LabelPrior
from feedback_adapter.protocols.partial_labels import negative_log_likelihood

FOLDERS = {"caption-words": "flickr8k", "coco-objects": "coco6k"}
POSTERIOR = {
    "caption-words-lite0": fa.PosteriorOptions(joint=0.7, label_ridge=5e-3, joint_ridge=1e-2),
    "coco80-lite0": fa.PosteriorOptions(joint=0.0, label_ridge=1e-2, joint_ridge=2e-2),
}
"""Chosen on dev: the mix that scored best there."""


def main(
    checkpoints: list[str],
    data: Annotated[Path, typer.Option(help="Folder with flickr8k and coco6k.")],
    cache: Annotated[Path, typer.Option(help="For logits.")] = Path("runs/cache"),
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    halves: Annotated[int, typer.Option(help="Random halves of the labels.")] = 3,
    trained: Annotated[bool, typer.Option(help="Tier C too: logistic regressions, slow.")] = True,
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path(
        "docs/results/partial-labels.json"
    ),
) -> None:
    """Measure every baseline and the posterior; write rows and a table."""
    rows = json.loads(out.read_text())["rows"] if out.is_file() else []
    rows = [row for row in rows if row["checkpoint"] not in checkpoints or row.get("half") == "run"]
    for name in checkpoints:
        rows += measure(name, data, cache, split, halves, trained)
    content = {
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "seeds": list(range(halves)), "split": split, "rows": rows,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(rows))
    print(table(rows))


def measure(
    name: str, data: Path, cache: Path, split: str, halves: int, trained: bool = True
) -> list[dict[str, object]]:
    adapter = fa.load(name)
    source = read_config(find(name))["data"]["source"]
    images = readers.read(data / FOLDERS[source], adapter.labels, source)
    train_logits, train = logits(adapter, images.subset("train"), cache / f"{name}-train.npz")
    own_logits, truth = logits(adapter, images.subset(split), cache / f"{name}-{split}.npz")
    prior = LabelPrior.fit(*(torch.from_numpy(a) for a in (sigmoid(train_logits), train)))
    found: dict[tuple[str, str, bool, float], list[tuple[np.ndarray, np.ndarray]]] = {}
    for seed in range(halves):
        order = np.random.default_rng(seed).permutation(truth.shape[1])
        may, unknown = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        for share in (25, 50, 75, 100):
            chosen = np.random.default_rng([seed, share]).permutation(may)
            known = np.sort(chosen[: round(len(may) * share / 100)])
            task = Task(train_logits, train, own_logits, truth, known, unknown)
            scores = {("none", "A", True): own_logits[:, unknown]}
            for method, (tier, function) in BASELINES.items():
                if tier == "C" and not trained:
                    continue
                scores[method, tier, True] = function(task)
            options = POSTERIOR[name]
            scores["posterior", "B", False] = posterior(prior, task, options)
            for part, joint in (("independent", 0.0), ("joint", 1.0)):
                scores[f"posterior, {part} alone", "B", part == "joint"] = posterior(
                    prior,
                    task,
                    fa.PosteriorOptions(joint, options.label_ridge, options.joint_ridge),
                )
            for (method, tier, baseline), value in scores.items():
                pair = (value, truth[:, unknown] > 0)
                found.setdefault((method, tier, baseline, share), []).append(pair)
    return [row(name, *key, pairs) for key, pairs in found.items()]


def posterior(prior: LabelPrior, task: Task, options: fa.PosteriorOptions) -> np.ndarray:
    """What `strategy="posterior"` computes, from logits that are there already."""
    logits_, truth = torch.from_numpy(task.logits), torch.from_numpy(task.truth)
    known = torch.zeros(truth.shape, dtype=torch.bool)
    known[:, task.known] = True
    mixed = logits_ + prior.from_labels(truth, known, options.label_ridge)
    if options.joint:
        joint = prior.from_all(logits_.sigmoid(), truth, known, options.joint_ridge)
        mixed = torch.lerp(mixed, joint, options.joint)
    return mixed.numpy()[:, task.unknown]


def row(
    checkpoint: str, method: str, tier: str, baseline: bool, known: float,
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, object]:  # fmt: skip
    maps = [score(value, truth) for value, truth in pairs]
    rng = np.random.default_rng(0)
    value, truth = pairs[0]
    resampled = []
    for _ in range(8):  # images, for the first half of the labels
        picked = rng.integers(len(value), size=len(value))
        resampled.append(score(value[picked], truth[picked]))
    spread = float(np.std(resampled))
    log_odds = method in ("none", "posterior") or "posterior" in method or "logistic" in method
    p = [sigmoid(value) if log_odds else value for value, _ in pairs]
    nll = np.mean(
        [negative_log_likelihood(q, t).mean() for q, (_, t) in zip(p, pairs, strict=True)]
    )
    mean = float(np.mean(maps))
    return {
        "checkpoint": checkpoint, "method": method, "tier": tier, "baseline": baseline,
        "known": known, "metric": "mAP", "value": round(mean, 3),
        "sd": round(float(np.std(maps, ddof=1)) if len(maps) > 1 else 0.0, 3),
        "low": round(mean - 1.96 * spread, 3), "high": round(mean + 1.96 * spread, 3),
        "images": len(value), "nll": round(float(nll), 5),
    }  # fmt: skip


def score(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean average precision, 0 to 100, of all labels at once; ties as they come."""
    order = np.argsort(-scores, 0, kind="stable")
    hits = np.take_along_axis(truth, order, 0)
    precision = np.cumsum(hits, 0) / np.arange(1, len(scores) + 1)[:, None]
    there = hits.any(0)
    return 100 * float(((precision * hits).sum(0)[there] / hits.sum(0)[there]).mean())


def logits(
    adapter: fa.Adapter, images: readers.LabelledImages, file: Path
) -> tuple[np.ndarray, np.ndarray]:
    """The model's logits and the truth, (images, labels) float32, kept in a file."""
    truth = images.targets.astype(np.float32)
    if file.is_file():
        kept = np.load(file)
        if list(kept["names"]) == list(images.names):
            return kept["logits"], truth
    assert adapter.transform is not None, "the zoo's checkpoints have a transform"
    parts = []
    for start in range(0, len(images), 32):
        rows = range(start, min(start + 32, len(images)))
        batch = torch.stack([adapter.transform(images.open(i)) for i in rows])
        parts.append(torch.as_tensor(adapter.predict(batch)).numpy())
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, logits=np.concatenate(parts), names=np.array(images.names))
    return np.concatenate(parts), truth


def table(rows: list[dict[str, object]]) -> str:
    lines = []
    for checkpoint in dict.fromkeys(str(row["checkpoint"]) for row in rows):
        own = [row for row in rows if row["checkpoint"] == checkpoint]
        shares = sorted({float(str(row["known"])) for row in own})
        lines += [f"**{checkpoint}**, mAP of the unknown half", ""]
        lines += ["| method | tier | " + " | ".join(f"{s:g}% known" for s in shares) + " | NLL |"]
        lines += ["| --- " * (len(shares) + 3) + "|"]
        for method in dict.fromkeys(str(row["method"]) for row in own):
            mine = {float(str(r["known"])): r for r in own if r["method"] == method}
            cells = " | ".join(f"{mine[s]['value']:.2f} ± {mine[s]['sd']:.2f}" for s in shares)
            last = mine[shares[-1]]
            lines.append(f"| {method} | {last['tier']} | {cells} | {last['nll']:.4f} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
