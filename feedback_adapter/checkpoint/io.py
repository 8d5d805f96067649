"""A checkpoint's parts: read from a folder, and written to one."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.checkpoint.alike import check_alike, check_returned, returned
from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.card import Card
from feedback_adapter.checkpoint.format import (
    STATISTICS,
    WEIGHTS,
    find,
    read_card,
    read_config,
    read_priors,
    read_weights,
)
from feedback_adapter.checkpoint.hub import HUB, fetch
from feedback_adapter.checkpoint.outline import outline_of
from feedback_adapter.checkpoint.rebuild import recover
from feedback_adapter.checkpoint.tensors import check_shapes, fill, state_of
from feedback_adapter.checkpoint.writing import free, write_folder
from feedback_adapter.defaults import Defaults
from feedback_adapter.errors import CheckpointError, FeedbackAdapterError, ModelError
from feedback_adapter.outputs import Output
from feedback_adapter.prior import LabelPrior
from feedback_adapter.strategies.solvers import solver_note, solver_of
from feedback_adapter.transform import PhotoTransform, Transform


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Everything that a checkpoint is made of, as an adapter holds it: see `Adapter`."""

    model: nn.Module
    outputs: Mapping[str, Output]
    transform: PhotoTransform | None
    defaults: Defaults
    priors: Mapping[str, LabelPrior]
    card: Card


def read(
    name: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "cpu"
) -> Checkpoint:
    """Read a checkpoint. See `feedback_adapter.load`."""
    folder = find(name)
    config = read_config(folder)
    if str(name).startswith(HUB):  # the weights, of the same commit
        others = [STATISTICS] if "statistics" in config else []
        fetch(f"{str(name).partition('@')[0]}@{folder.name}", WEIGHTS, *others)
    card = read_card(folder, config)
    shapes, tensors = read_weights(folder, config)
    given = model is not None
    if model is None:
        if card.architecture is None:
            raise CheckpointError(
                f"{folder} was saved from a model that only you can build: load(..., model=yours)."
            )
        size = sum(math.prod(shape) for shape in shapes.values())
        check_shapes(outline_of(card.architecture.build, size, len(shapes)), shapes, folder)
        with torch.random.fork_rng(devices=[]):
            model = card.architecture.build()
    if not isinstance(model, nn.Module):
        raise ModelError(f"model is a {type(model).__name__}: pass an nn.Module.")
    check_shapes(model, shapes, folder)
    outputs: dict[str, Output] = {}
    for key, note in config["outputs"].items():
        with _named(folder, f"outputs.{key}"):
            outputs[key] = _output(model, note)
    with _named(folder, "transform"):
        transform = Transform(**config["transform"]) if config.get("transform") else None
    with _named(folder, "refine"):
        defaults = _defaults(config.get("refine") or {})
    priors = read_priors(folder, config)
    fill(model, tensors(), config["weights"], folder)
    if given and "returned" in config:
        with _named(folder, "model"):
            check_returned(model, outputs, config["returned"])
    try:
        model.to(device).eval()
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"device={device!r} can't be used: {error}") from error
    return Checkpoint(model, outputs, transform, defaults, priors, card)


@contextlib.contextmanager
def _named(folder: Path, part: str) -> Generator[None]:
    """Say of an error which part of which checkpoint it is about."""
    try:
        yield
    except FeedbackAdapterError as error:
        said = str(error)[:500]  # it may quote a part of the config that is long
        raise CheckpointError(f"{folder}: {part!r} can't be used: {said}") from error


def _output(model: nn.Module, note: Mapping[str, Any]) -> Output:
    decoder = note.get("decoder")
    try:
        part = model.get_submodule(decoder) if decoder else None
    except AttributeError as error:
        raise ModelError(f"the model has no part {decoder!r}: {error}.") from error
    return Output(
        tuple(note["labels"]),
        note["kind"],
        note.get("select"),
        note.get("hierarchy"),
        part,
        note.get("exclusive"),
    )


def _defaults(note: Mapping[str, Any]) -> Defaults:
    fields = {key: value for key, value in note.items() if value is not None}
    if isinstance(fields.get("pivots"), list):
        fields["pivots"] = tuple(fields["pivots"])
    fields["options"] = _with_solvers(fields.get("options", {}), solver_of)
    others = fields.get("others", {})
    fields["others"] = {name: _with_solvers(given, solver_of) for name, given in others.items()}
    return Defaults(**fields)


def _with_solvers(options: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Options of a strategy, with what `change` makes of a solver among them."""
    return {key: change(value) if key == "solver" else value for key, value in options.items()}


def write(
    checkpoint: Checkpoint, folder: str | Path, architecture: Architecture | None = None
) -> dict[str, Any]:
    """Write a checkpoint to a folder, as `read` reads it. See `Adapter.save`.

    Weights that were stored as float16 and still are float16 numbers are stored so again.
    """
    folder = free(folder)
    model, card = checkpoint.model, checkpoint.card
    if architecture is None:
        count = max(len(spec.labels) for spec in checkpoint.outputs.values())
        architecture = card.architecture or recover(model, count)
    if checkpoint.transform is not None and not isinstance(checkpoint.transform, Transform):
        raise CheckpointError(
            f"transform is a {type(checkpoint.transform).__name__}, which a checkpoint can't hold: "
            "give a feedback_adapter.Transform, or set adapter.transform = None."
        )
    tensors, weights = state_of(model, card.dtype)
    config: dict[str, Any] = {
        "name": folder.name,
        **card.facts(),
        "architecture": dataclasses.asdict(architecture) if architecture else None,
        "outputs": {name: described(spec, model) for name, spec in checkpoint.outputs.items()},
        "transform": dataclasses.asdict(checkpoint.transform) if checkpoint.transform else None,
    }
    tried = returned(model, checkpoint.outputs, checkpoint.transform)
    if tried is not None:
        config["returned"] = tried
    if checkpoint.defaults != Defaults():
        config["refine"] = _noted(checkpoint.defaults)
    written = write_folder(
        folder,
        config,
        tensors,
        weights=weights,
        priors=checkpoint.priors,
        text=card.text,
        check=lambda staged: _check(staged, checkpoint, architecture),
    )
    if architecture is None:
        warnings.warn(
            f"{folder} holds the weights of a {type(model).__qualname__}, but not how it is built: "
            "to load it, build the model and call load(folder, model=yours). If timm or "
            "torchvision built it, save(folder, architecture=Architecture(library, model, kwargs)) "
            "makes that needless.",
            UserWarning,
            stacklevel=3,
        )
    return written


def _check(staged: Path, checkpoint: Checkpoint, architecture: Architecture | None) -> None:
    """Check that what was written makes the model again."""
    model = checkpoint.model
    if architecture is None:
        try:
            own = copy.deepcopy(model)
        except Exception:  # not every model can be copied
            return
        again = read(staged, model=own).model
    else:
        device = next((tensor.device for tensor in model.parameters()), "cpu")
        try:
            again = read(staged, device=device).model
            check_alike(model, again, checkpoint.transform)
        except CheckpointError as error:
            said = str(error).replace(f" of {staged}", "")
            raise CheckpointError(
                f"{architecture} builds another model. {said} Pass "
                "save(folder, architecture=Architecture(library, model, kwargs)) as you built it. "
                "If you changed the model afterwards, wrap it in a module of your own: then it is "
                "saved, and load(folder, model=yours) gets it back."
            ) from error
    own, other = model.state_dict(), again.state_dict()
    changed = [name for name, value in own.items() if not _equal(value, other.get(name))]
    if changed:
        raise CheckpointError(
            f"{changed[0]!r} of the model's state would come back as something else: its own way "
            "of saving and loading (state_dict, load_state_dict) doesn't keep it."
        )


def _equal(one: Any, two: Any) -> bool:
    if not isinstance(one, Tensor):
        return one == two
    if not isinstance(two, Tensor) or one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.layout != torch.strided:
        one, two = one.to_dense(), two.to_dense()
    return torch.allclose(one, two.to(one.device), rtol=0.0, atol=0.0, equal_nan=True)


def described(spec: Output, model: nn.Module) -> dict[str, Any]:
    """What a config says of an output."""
    note: dict[str, Any] = {"kind": spec.kind, "labels": list(spec.labels)}
    if spec.select is not None:
        note["select"] = spec.select
    if spec.exclusive is not None:
        note["exclusive"] = spec.exclusive
    if spec.hierarchy is not None:
        note["hierarchy"] = {name: list(labels) for name, labels in spec.hierarchy.items()}
    if spec.decoder is not None:
        names = [name for name, module in model.named_modules() if module is spec.decoder]
        if not names:
            raise CheckpointError(
                "The decoder of an output must be a part of the model, to be saved with it."
            )
        note["decoder"] = names[0]
    return note


def _noted(defaults: Defaults) -> dict[str, Any]:
    """What a config says of how `refine` works: the fields that say something."""
    usual = {"pivots", "options"}
    fields = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
    fields["options"] = _with_solvers(defaults.options, solver_note)
    others = defaults.others.items()
    fields["others"] = {name: _with_solvers(options, solver_note) for name, options in others}
    return {key: value for key, value in fields.items() if value or key in usual}
