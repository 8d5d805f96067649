"""What a checkpoint says of itself: for programs in its config, for readers in README.md."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from feedback_adapter.checkpoint.architecture import Architecture

FACTS = ("name", "summary", "data", "training", "metrics", "license")
"""The keys of a config that are a card's."""
_SPLITS = ("train", "dev", "val", "validation", "test")
_TASKS = {"tokens": "image-to-text", "map": "image-segmentation"}
_SPDX = re.compile(r"[A-Za-z0-9.-]+")
_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
"""What a hub takes as the name of a licence, and of a data set."""


@dataclasses.dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself, beside its weights and what its outputs mean.

    `Adapter.save` writes it to the config and, as the header and the text of README.md, for
    readers and for hubs.

    Args:
        name: The name of the checkpoint; empty takes that of the folder.
        summary: One line for lists.
        data: What it was trained on: `"source"`, `"images"` per split, `"citation"`.
        training: How it was trained: the recipe, its settings, versions, machine, seconds.
        metrics: What it scores, by name, in `{split: {metric: score}}` or `{split_metric: score}`.
        license: What the licence of its data allows.
        architecture: How its model is built; `None` where only its owner can build it, or where
            the model says so itself, as timm's do.
        dtype: How its weights are stored: `"as saved"`, each in the model's own dtype, or
            `"float16"` as long as they are float16 numbers.
        text: The page for readers, in Markdown, without a header; empty takes the name and the
            summary.
    """

    name: str = ""
    summary: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any], repr=False)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    license: str = ""
    architecture: Architecture | None = None
    dtype: Literal["as saved", "float16"] = "as saved"
    text: str = dataclasses.field(default="", repr=False)

    def facts(self) -> dict[str, Any]:
        """What a config holds of it under keys of the same names: all that isn't empty."""
        return {key: getattr(self, key) for key in FACTS if getattr(self, key)}


def page_of(config: Mapping[str, Any], text: str) -> str:
    """README.md: a header in YAML, as hubs read it, made of the config; and the text.

    An empty text takes the name and the summary.
    """
    from huggingface_hub import EvalResult, ModelCardData

    library = (config.get("architecture") or {}).get("library")
    kinds = [output["kind"] for output in config["outputs"].values()]
    task = next((_TASKS[kind] for kind in kinds if kind in _TASKS), "image-classification")
    license = config.get("license")
    named = bool(license) and not _SPDX.fullmatch(license)
    source = config.get("data", {}).get("source")
    source = source if isinstance(source, str) and source else None
    dataset = source if source and _DATASET.fullmatch(source) else None
    results = [
        EvalResult(
            task_type=task,
            dataset_type=dataset or _slug(source or "unknown"),
            dataset_name=source or "unknown",
            dataset_split=split,
            metric_type=_slug(metric),
            metric_name=metric,
            metric_value=value,
        )
        for split, metric, value in _scores(config.get("metrics", {}))
    ]
    data = ModelCardData(
        library_name="feedback_adapter",
        pipeline_tag=task,
        tags=list(dict.fromkeys(["feedback_adapter", *([library] if library else []), *kinds])),
        license="other" if named else license and license.lower(),
        license_name=license if named else None,
        datasets=[dataset] if dataset else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=config.get("name") or "unnamed",
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text or _short(config)}"


def text_of(page: str, config: Mapping[str, Any]) -> str:
    """The text of a page that `page_of` made; empty if it was."""
    if page.startswith("---\n"):
        header, end, text = page.partition("\n---\n")
        page = text.removeprefix("\n") if end else header
    return "" if page == _short(config) else page


def _short(config: Mapping[str, Any]) -> str:
    summary = config.get("summary")
    return f"# {config.get('name') or 'unnamed'}\n" + (f"\n{summary}\n" if summary else "")


def _scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str | None, str, float]]:
    """The split, if one is named, the metric and the value of each score."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            split = name if name in _SPLITS else None
            for inner, metric, score in _scores(value):
                yield split or inner, metric if split else f"{name}, {metric}", score
        elif isinstance(value, int | float) and not isinstance(value, bool):
            split, _, metric = name.partition("_")
            yield (split, metric, value) if split in _SPLITS and metric else (None, name, value)


def _slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9.]+", name.lower())) or "score"
