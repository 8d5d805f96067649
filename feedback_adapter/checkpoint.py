"""Checkpoints: config.json and model.safetensors in a folder, checked by sha256."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from feedback_adapter import plugins
from feedback_adapter.adapter import Adapter
from feedback_adapter.defaults import Defaults
from feedback_adapter.errors import CheckpointError, did_you_mean
from feedback_adapter.networks import NETWORKS
from feedback_adapter.outputs import Output
from feedback_adapter.prior import LabelPrior
from feedback_adapter.transform import Transform

__all__ = ["Architecture", "Transform", "load", "read_config", "save"]

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_NOTE = ("file", "sha256", "dtype")  # what config.json says of the weights


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How to build a model without weights.

    Args:
        library: `"timm"` (`timm.create_model`), `"torchvision"` (`get_model`),
            `"feedback_adapter"` (one of `feedback_adapter.networks.NETWORKS`), or one that a
            plugin adds (`ArchitectureSpec`).
        model: The model's name there.
        kwargs: Its arguments, as JSON can hold them.
    """

    library: str
    model: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    def build(self) -> nn.Module:
        """The model, with weights that are still to be loaded.

        Raises:
            CheckpointError: No such library or model.
        """
        try:
            if self.library == "timm":
                import timm

                return timm.create_model(self.model, pretrained=False, **self.kwargs)
            if self.library == "torchvision":
                import torchvision

                return torchvision.models.get_model(self.model, weights=None, **self.kwargs)
            if self.library == "feedback_adapter" and self.model in NETWORKS:
                return NETWORKS[self.model](**self.kwargs)
            added = {spec.name: spec for spec in plugins.plugins().all("architectures")}
            if self.library in added:
                return added[self.library].build(self.model, self.kwargs)
        except CheckpointError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{self.library} can't build {self.model!r} with {dict(self.kwargs)}: {error}"
            ) from error
        if self.library == "feedback_adapter":
            raise CheckpointError(
                f"There is no network {self.model!r}. {did_you_mean(self.model, NETWORKS)}"
            )
        possible = ["timm", "torchvision", "feedback_adapter", *added]
        raise CheckpointError(
            f"library={self.library!r} is not possible: {', '.join(possible)} are. Install the "
            "plugin that builds such models, or load(..., model=yours)."
        )


def load(
    name: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "cpu"
) -> Adapter:
    """A checkpoint as a ready adapter.

    Args:
        name: The name of a checkpoint of the zoo or of another plugin, or a folder.
        model: For a checkpoint whose architecture is not timm's or torchvision's: the
            model, built by you; the weights are loaded into it.
        device: Where the model goes.

    Raises:
        CheckpointError: Unknown name, missing file, wrong sha256, or weights that don't fit.
    """
    folder = find(name)
    config = read_config(folder)
    weights = folder / config["weights"]["file"]
    if not weights.is_file():
        raise CheckpointError(f"{folder} has no {weights.name}: the checkpoint is incomplete.")
    found = _sha256(weights)
    if found != config["weights"]["sha256"]:
        raise CheckpointError(
            f"{weights} has sha256 {found[:12]}…, but its config.json says "
            f"{config['weights']['sha256'][:12]}…: it is damaged or was exchanged. Get it again."
        )
    if model is None:
        if config["architecture"] is None:
            raise CheckpointError(
                f"{folder} was saved from a model that only you can build: load(..., model=yours)."
            )
        model = Architecture(**config["architecture"]).build()
    try:
        state = safetensors.torch.load_file(weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{weights} can't be read: {error}") from error
    own = model.state_dict()
    tensors = {n: t.to(own[n].dtype) if n in own else t for n, t in state.items()}
    if config["weights"]["dtype"] == "as saved":
        tensors = state
        for parameter in (*model.named_parameters(), *model.named_buffers()):
            if parameter[0] in state:
                parameter[1].data = parameter[1].data.to(state[parameter[0]].dtype)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"The weights of {folder} don't fit the model: {error}") from error
    transform = Transform(**config["transform"]) if config.get("transform") else None
    refine = config.get("refine") or {}
    defaults = Defaults(
        strategy=refine.get("strategy", Defaults.strategy),
        pivots=tuple(refine["pivots"]) if isinstance(refine.get("pivots"), list) else "auto",
        options=refine.get("options", {}),
        others=refine.get("others", {}),
    )
    outputs = {
        key: Output(
            tuple(value["labels"]),
            value["kind"],
            value.get("select"),
            value.get("hierarchy"),
            model.get_submodule(value["decoder"]) if value.get("decoder") else None,
        )
        for key, value in config["outputs"].items()
    }
    priors = {key: _prior(folder, note) for key, note in config.get("priors", {}).items()}
    return Adapter(
        model.to(device).eval(), outputs, transform=transform, defaults=defaults, priors=priors
    )


def _prior(folder: Path, note: Mapping[str, str]) -> LabelPrior:
    file = folder / note["file"]
    if not file.is_file() or _sha256(file) != note["sha256"]:
        raise CheckpointError(f"{file} is missing or isn't the one that {CONFIG} means.")
    return LabelPrior.load(file)


def find(name: str | Path) -> Path:
    """The folder of a checkpoint, by name or path."""
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    if folder.is_dir():
        raise CheckpointError(f"{folder} has no {CONFIG}: it isn't a checkpoint.")
    known = [spec.name for spec in plugins.plugins().all("checkpoints")]
    if str(name) not in known:
        hint = did_you_mean(str(name), known)
        hint += "" if known else " Install feedback-adapter-zoo for some."
        raise CheckpointError(f"There is no checkpoint or folder {str(name)!r}. {hint}")
    return plugins.checkpoint(str(name)).path


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json.

    Raises:
        CheckpointError: It isn't JSON, of another format, or lacks a part.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / CONFIG} holds a {type(config).__name__}, not an object.")
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder / CONFIG} has format {config.get('format')!r}; this version reads {FORMAT}."
        )
    missing = [key for key in ("architecture", "outputs", "weights") if key not in config]
    missing += [f"weights.{key}" for key in _NOTE if key not in config.get("weights", _NOTE)]
    if missing:
        raise CheckpointError(f"{folder / CONFIG} lacks {missing}.")
    return config


def save(adapter: Adapter, folder: Path, architecture: Architecture | None) -> Path:
    """Write an adapter to a folder. See `Adapter.save`."""
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} holds other files: give a new or empty folder.")
    architecture = architecture or _architecture(adapter.model)
    if architecture is not None:
        _check_same(architecture, adapter.model)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in adapter.model.state_dict().items()}
    safetensors.torch.save_file(_unshared(state), folder / WEIGHTS)
    config: dict[str, Any] = {
        "format": FORMAT,
        "name": folder.name,
        "architecture": dataclasses.asdict(architecture) if architecture else None,
        "outputs": {
            name: _described(spec, adapter.model) for name, spec in adapter.outputs.items()
        },
        "transform": dataclasses.asdict(adapter.transform) if adapter.transform else None,
        "weights": {"file": WEIGHTS, "sha256": _sha256(folder / WEIGHTS), "dtype": "as saved"},
        "refine": {
            "strategy": adapter.defaults.strategy,
            "pivots": adapter.defaults.pivots
            if isinstance(adapter.defaults.pivots, str)
            else list(adapter.defaults.pivots),
            "options": dict(adapter.defaults.options),
            "others": {name: dict(own) for name, own in adapter.defaults.others.items()},
        },
    }
    for name, prior in adapter.priors.items():
        file = folder / f"prior-{name}.safetensors"
        prior.save(file)
        config.setdefault("priors", {})[name] = {"file": file.name, "sha256": _sha256(file)}
    (folder / CONFIG).write_text(json.dumps(config, indent=1))
    return folder


def _described(spec: Output, model: nn.Module) -> dict[str, Any]:
    described: dict[str, Any] = {
        "kind": spec.kind, "labels": list(spec.labels), "select": spec.select
    }  # fmt: skip
    if spec.hierarchy is not None:
        described["hierarchy"] = {name: list(labels) for name, labels in spec.hierarchy.items()}
    if spec.decoder is not None:
        described["decoder"] = next(n for n, m in model.named_modules() if m is spec.decoder)
    return described


def _architecture(model: nn.Module) -> Architecture | None:
    """timm's own note on how a model was made, if it is one of timm's."""
    note = getattr(model, "pretrained_cfg", None)
    name = note.get("architecture") if isinstance(note, dict) else None
    if name is None:
        return None
    kwargs: dict[str, Any] = {"num_classes": model.num_classes}
    first = next((p for p in model.parameters() if p.ndim == 4), None)
    if first is not None and first.shape[1] not in (1, 3):
        kwargs["in_chans"] = first.shape[1]
    return Architecture("timm", name, kwargs)


def _check_same(architecture: Architecture, model: nn.Module) -> None:
    built = {n: tuple(t.shape) for n, t in architecture.build().state_dict().items()}
    own = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    if built != own:
        apart = sorted(n for n in built.keys() | own.keys() if built.get(n) != own.get(n))
        raise CheckpointError(
            f"{architecture} builds another model (first difference: {apart[0]!r}). Pass "
            "save(folder, architecture=Architecture(library, model, kwargs)) as you built it."
        )


def _unshared(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """safetensors refuses tensors that share memory: copy those that do."""
    seen: set[int] = set()
    result: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        pointer = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return result


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
