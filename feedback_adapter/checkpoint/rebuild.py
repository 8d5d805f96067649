"""Whether a model can be built again from what is known about it."""

from __future__ import annotations

from typing import Any

from torch import nn

from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.errors import CheckpointError

__all__ = ["check_same", "of_timm"]


def of_timm(model: nn.Module) -> Architecture | None:
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


def check_same(architecture: Architecture, model: nn.Module) -> None:
    """Check that an architecture builds a model of these parameters.

    Raises:
        CheckpointError: It doesn't.
    """
    built = {n: tuple(t.shape) for n, t in architecture.build().state_dict().items()}
    own = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    if built != own:
        apart = sorted(n for n in built.keys() | own.keys() if built.get(n) != own.get(n))
        raise CheckpointError(
            f"{architecture} builds another model (first difference: {apart[0]!r}). Pass "
            "save(folder, architecture=Architecture(library, model, kwargs)) as you built it."
        )
