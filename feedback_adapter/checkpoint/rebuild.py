"""How a model can be built again: the arguments that timm's and torchvision's were made with.

Neither library notes them on its models. They are searched: candidates are built on the meta
device, without memory for weights, and the one that is made of the same parts is it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.outline import apart, facts_of, outline_of
from feedback_adapter.errors import CheckpointError
from feedback_adapter.timm_notes import stem_channels

_CLASSES = {
    "act_layer": "silu mish relu relu6 leaky_relu elu prelu celu selu gelu gelu_tanh quick_gelu "
    "sigmoid tanh hard_sigmoid hard_swish hard_mish identity",
    "norm_layer": "batchnorm2d frozenbatchnorm2d groupnorm groupnorm1 layernorm layernorm2d "
    "rmsnorm rmsnorm2d simplenorm evonormb0 evonorms0 frn",
    "aa_layer": "avg blur",
}
"""Arguments of timm that name a class; tried where a class of that name is in the model."""
_VALUES: dict[str, tuple[Any, ...]] = {
    "global_pool": ("avg", "max", "avgmax", "catavgmax", "fast", "token", "map"),
    "output_stride": (8, 16),
    "pos_embed": ("none", "learn"),
    "stem_type": ("", "deep", "deep_tiered", "patch"),
    "stem_width": (32, 24),
    "pad_type": ("", "same"),
    "mlp_ratio": (1, 2, 3, 4, 6),
    "init_values": (1e-5, None),
    "attn_type": ("standard", "rope"),
}
"""Arguments that leave no attribute of their name, with what they usually are."""
_NEVER = frozenset(["self", "device", "dtype", "kwargs", "weight_init", "fix_init"])
_MOST = 250
"""So many candidates are built at most."""


def recover(model: nn.Module, labels: int) -> Architecture | None:
    """How to build the model that is most like one that timm or torchvision has made.

    `labels` is the number of labels of its output. It is `None` for other models.
    """
    note = getattr(model, "pretrained_cfg", None)
    name = note.get("architecture") if isinstance(note, dict) else None
    if isinstance(name, str):
        return _Search(model, "timm", labels).best([name])
    if not type(model).__module__.startswith("torchvision.models."):
        return None
    from torchvision.models import get_model_builder, list_models

    module = type(model).__module__
    names = [name for name in list_models() if get_model_builder(name).__module__ == module]
    return _Search(model, "torchvision", labels).best(names)


class _Search:
    """Looks for the arguments that a model was made with."""

    def __init__(self, model: nn.Module, library: str, labels: int) -> None:
        self.model, self.library, self.left = model, library, _MOST
        self.facts = facts_of(model)
        tensors = [*model.parameters(), *model.buffers()]
        self.size = sum(tensor.numel() for tensor in tensors), len(tensors)
        count = getattr(model, "num_classes", None)
        self.classes = list(dict.fromkeys([count, labels] if isinstance(count, int) else [labels]))

    def best(self, names: list[str]) -> Architecture | None:
        """The model of one of these names, and its arguments, that are most alike."""
        starts = [(name, {"num_classes": n}) for name in names for n in self.classes]
        tried = [(self.differ(name, kwargs), name, kwargs) for name, kwargs in starts]
        tried = [start for start in tried if start[0] is not None]
        if not tried:
            return Architecture(self.library, names[0], starts[0][1]) if names else None
        differ, name, kwargs = min(tried, key=lambda start: start[0] or 0)
        better = True
        while better:
            better = False
            for key, value in self.candidates():
                if not differ or self.left <= 0:
                    break
                trial = {**kwargs, key: value}
                found = self.differ(name, trial) if kwargs.get(key, ...) != value else None
                if found is not None and found < differ:
                    differ, kwargs, better = found, trial, True
        return Architecture(self.library, name, kwargs)

    def differ(self, name: str, kwargs: Mapping[str, Any]) -> int | None:
        """In how many facts a candidate differs from the model; `None` if there's no such."""
        self.left -= 1
        try:
            built = outline_of(Architecture(self.library, name, kwargs).build, *self.size)
        except CheckpointError:
            return None
        return len(apart(self.facts, facts_of(built)))

    def candidates(self) -> Iterator[tuple[str, Any]]:
        """Arguments that the model may have been made with, by name."""
        classes = " ".join(str(v) for k, v in self.facts.items() if k.endswith(":")).lower()
        seen: dict[str, list[Any]] = {}
        for key, value in self.facts.items():
            said = seen.setdefault(key.rpartition(":")[2], [])
            if value not in said:
                said.append(value)
        for key, parameter in self.parameters().items():
            values = [v for v in seen.get(key, [])[:4] if isinstance(v, bool | int | float | tuple)]
            if key in _CLASSES:
                words = _CLASSES[key].split()
                values += [w for w in words if w.replace("_", "").rstrip("12d") in classes]
            elif isinstance(parameter.default, bool):
                values += [not parameter.default]
            values += _VALUES.get(key, ())
            if key == "in_chans":
                values = [stem_channels(self.model)]
            elif key == "reg_tokens":
                values += seen.get("num_reg_tokens", [])
            elif key == "depth" and hasattr(self.model, "blocks"):
                values += [len(self.model.blocks)]  # pyright: ignore[reportArgumentType]
            yield from ((key, value) for value in values)

    def parameters(self) -> dict[str, inspect.Parameter]:
        """What the model's class and its bases take, by name."""
        found: dict[str, inspect.Parameter] = {}
        for kind in type(self.model).__mro__:
            if kind is nn.Module:
                break
            for key, parameter in inspect.signature(kind.__init__).parameters.items():
                if key not in _NEVER and key != "num_classes":
                    found.setdefault(key, parameter)
        return found
