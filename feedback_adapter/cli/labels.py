"""`feedback-adapter labels`: what can be known and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_adapter.cli.common import print_json
from feedback_adapter.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping


def list_labels(
    checkpoint: Annotated[
        str, typer.Argument(help="Name (see: zoo list), folder or hf-hub:owner/name.")
    ],
    coarse: Annotated[
        bool, typer.Option("--coarse", help="The coarse classes, for --know-coarse, instead.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the labels of a checkpoint: the words for --know and --know-not."""
    from feedback_adapter.checkpoint import find, read_config

    outputs: Mapping[str, Any] = read_config(find(checkpoint))["outputs"]
    outputs = {name: spec for name, spec in outputs.items() if spec["kind"] != "tokens"}
    found = {name: _coarse(spec) if coarse else spec["labels"] for name, spec in outputs.items()}
    if json:
        print_json({"checkpoint": checkpoint, "labels": found})
        return
    if not any(found.values()):
        raise EvidenceError(
            f"{checkpoint!r} has no coarse classes: its outputs have no hierarchy, and its labels "
            "aren't ImageNet's. Leave out --coarse for its labels."
        )
    for name, labels in found.items():
        for label in labels:
            typer.echo(f"{name}/{label}" if len(found) > 1 else label)


def _coarse(spec: Mapping[str, Any]) -> list[str]:
    from feedback_adapter.evidence.hierarchy import wordnet

    if spec.get("hierarchy"):
        return list(spec["hierarchy"])
    net = wordnet()
    if spec["kind"] != "multiclass" or None in net.ids_of(spec["labels"]):
        return []
    return sorted({net.names[key][0] for key, below in net.below.items() if len(below) > 1})
