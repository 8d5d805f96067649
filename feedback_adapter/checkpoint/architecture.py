"""How to build a model without weights, from names and numbers alone."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from feedback_adapter import plugins
from feedback_adapter.checkpoint.schema import shortly
from feedback_adapter.errors import CheckpointError, did_you_mean
from feedback_adapter.networks import NETWORKS

_WORDS = frozenset(
    "act_layer aa_layer attn_type block_type class_token conv_layer fc_norm global_pool "
    "mlp_layer norm_layer padding pool_type pos_embed rd_mode stem_type".split()
)
"""The arguments of timm and torchvision that may be text."""
_FETCH = ("pretrained", "checkpoint", "cache", "weights", "url", "file", "hub", "path", "config")
"""Arguments whose names hold one of these load, fetch or name a place."""
_HARMLESS = frozenset(["drop_path", "drop_path_rate", "drop_path_prob"])
_LARGEST = 1_000_000


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How to build a model without weights.

    Args:
        library: `"timm"` (`timm.create_model`), `"torchvision"` (`get_model`),
            `"feedback_adapter"` (one of `feedback_adapter.networks.NETWORKS`), or one that a
            plugin adds (`ArchitectureSpec`).
        model: The model's name there.
        kwargs: Its arguments: numbers, true or false, short text where an argument is known to
            take it, and lists of them. Nothing that loads, fetches or names a file.
    """

    library: str
    model: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    def build(self) -> nn.Module:
        """The model, with weights that are still to be loaded.

        Raises:
            CheckpointError: There is no such library or model, or an argument isn't one that
                only builds a network.
        """
        added = {spec.name: spec for spec in plugins.plugins().all("architectures")}
        try:
            if self.library == "timm":
                return self._timm()
            if self.library == "torchvision":
                return self._torchvision()
            if self.library == "feedback_adapter":
                return self._own()
            if self.library in added:
                harmless(self.kwargs, texts=True)
                return added[self.library].build(self.model, self.kwargs)
        except CheckpointError:
            raise
        except Exception as error:  # a builder can fail in any way with arguments of any kind
            raise CheckpointError(
                f"{self.library} can't build {shortly(self.model)} with "
                f"{shortly(dict(self.kwargs))}: {type(error).__name__}: {shortly(str(error))}"
            ) from error
        possible = ["timm", "torchvision", "feedback_adapter", *added]
        raise CheckpointError(
            f"library={shortly(self.library)} is not possible: {', '.join(possible)} are. Install "
            "the plugin that builds such models, or load(..., model=yours)."
        )

    def _timm(self) -> nn.Module:
        import timm

        timm_name(self.model)
        harmless(self.kwargs)
        return timm.create_model(self.model, pretrained=False, **self.kwargs)

    def _torchvision(self) -> nn.Module:
        import torchvision

        if self.model not in torchvision.models.list_models():
            hint = did_you_mean(self.model, torchvision.models.list_models())
            raise CheckpointError(f"torchvision can't build {shortly(self.model)}. {hint}")
        harmless(self.kwargs)
        builder = torchvision.models.get_model_builder(self.model)
        none: dict[str, Any] = {"weights": None}
        if "weights_backbone" in inspect.signature(builder).parameters:
            none["weights_backbone"] = None  # by default some would be downloaded
        return torchvision.models.get_model(self.model, **none, **self.kwargs)

    def _own(self) -> nn.Module:
        if self.model not in NETWORKS:
            raise CheckpointError(
                f"There is no network {shortly(self.model)}. {did_you_mean(self.model, NETWORKS)}"
            )
        arguments = dict(self.kwargs)
        timm_name(arguments.pop("backbone", None))
        heads = arguments.pop("heads", {})
        if not isinstance(heads, Mapping):
            raise CheckpointError(f"architecture.kwargs.heads={shortly(heads)} must be an object.")
        harmless(heads)
        harmless(arguments)
        return NETWORKS[self.model](**self.kwargs)


def harmless(arguments: Mapping[str, Any], *, texts: bool = False) -> None:
    """Refuse arguments that could do something else than build a network.

    With `texts`, any of them may be short text, or an object of such arguments.
    """
    for name, value in arguments.items():
        if texts and isinstance(value, Mapping):
            harmless(value, texts=True)
            continue
        if name not in _HARMLESS and any(word in name.lower() for word in _FETCH):
            raise CheckpointError(
                f"architecture.kwargs.{name} is not possible in a checkpoint: it could load, "
                "fetch or open something. Only arguments that build the network are."
            )
        for part in value if isinstance(value, list | tuple) else [value]:
            if not _fine(part, texts or name in _WORDS):
                raise CheckpointError(
                    f"architecture.kwargs.{name}={shortly(value)} is not possible in a "
                    f"checkpoint: numbers up to {_LARGEST:,}, true, false, null and lists of "
                    f"them are, and a word for {', '.join(sorted(_WORDS))}."
                )


def timm_name(name: Any) -> None:
    """Refuse a name that no model of timm has."""
    import timm

    if not isinstance(name, str) or not timm.is_model(name):
        raise CheckpointError(
            f"timm can't build {shortly(name)}. {did_you_mean(str(name), timm.list_models())}"
        )


def _fine(value: Any, text: bool) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return abs(value) <= _LARGEST
    if isinstance(value, str):
        return text and len(value) <= 64 and not set(value) & set("/\\:\0")
    if isinstance(value, list | tuple):
        return all(_fine(part, text) for part in value)
    return False
