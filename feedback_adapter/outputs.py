"""What a model returns: named outputs, their labels and their kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from feedback_adapter.errors import InputError, ModelError
from feedback_adapter.names import label_list
from feedback_adapter.rows import indices
from feedback_adapter.sites.nested import is_dense, named_tensors, pick

__all__ = ["SINGLE", "Kind", "Output", "Outputs", "pick", "read"]

SINGLE = "output"
"""Name of the output of a model that returns one tensor."""

Kind = Literal["multilabel", "multiclass", "tokens", "map"]


@dataclasses.dataclass(frozen=True)
class Output:
    """One output of a model: which tensor it is and what its entries mean.

    Args:
        labels: A name for each of the output's entries, in order: texts or numbers, also as an
            array, or as `{id: name}`.
        kind: `"multilabel"` (independent sigmoids), `"multiclass"` (one softmax), `"map"` (labels
            of each pixel: logits (batch, labels, height, width)) or `"tokens"`: what a decoder
            needs to write a text, (batch, anything); `labels` is then the vocabulary.
        select: Which tensor of the model's return value this is: `None` for the
            value itself, or for what is called as the output in it; or keys, indices and attribute
            names joined by dots (`"logits"`, `"0"`, `"heads.scene"`).
        hierarchy: `{coarse class: its labels}`, for `Coarse` evidence.
        decoder: For `"tokens"`: the part of the model that writes the text; see
            `feedback_adapter.networks.CaptionDecoder`.
        exclusive: For `"map"`: whether a pixel has exactly one of the labels (one softmax per
            pixel) or any number of them (independent sigmoids). By default it has one where there
            are two labels or more.

    Raises:
        ModelError: No labels, a label twice, an unknown kind, a multiclass output of one label, or
            `exclusive` where it can't be.
    """

    labels: tuple[str, ...]
    kind: Kind = "multilabel"
    select: str | None = None
    hierarchy: Mapping[str, Sequence[str]] | None = dataclasses.field(default=None, repr=False)
    decoder: nn.Module | None = dataclasses.field(default=None, repr=False, compare=False)
    exclusive: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", label_list(self.labels))
        if not isinstance(self.kind, str) or self.kind not in get_args(Kind):
            raise ModelError(f"kind={self.kind!r:.80} is not possible: {get_args(Kind)} are.")
        if self.select is not None and not isinstance(self.select, str):
            raise ModelError(
                f"select={self.select!r:.80} is not possible: give keys, indices and names of "
                "attributes joined by dots, as text."
            )
        if self.exclusive is not None and not isinstance(self.exclusive, bool):
            raise ModelError(
                f"exclusive={self.exclusive!r:.80} is not possible: True or False are."
            )
        if self.exclusive is not None and self.kind != "map":
            raise ModelError(
                f"exclusive={self.exclusive} is for kind='map'. Labels of which one holds are "
                "kind='multiclass', labels of which any number can hold kind='multilabel'."
            )
        if self.kind == "multiclass" and len(self.labels) == 1:
            raise ModelError(
                f"kind='multiclass' with the one label {self.labels[0]!r}: its probability would "
                "always be 1. For one logit of yes or no say kind='multilabel'."
            )
        if self.exclusive and len(self.labels) == 1:
            raise ModelError(
                f"exclusive=True with the one label {self.labels[0]!r}: each pixel would have it. "
                "Name the background as a label, or leave exclusive out."
            )

    @property
    def axis(self) -> int:
        """The dimension of logits that counts the labels: -3 for maps, else -1."""
        return -3 if self.kind == "map" else -1

    @property
    def one_holds(self) -> bool:
        """Whether exactly one of the labels holds (a softmax), of each pixel in a map."""
        if self.kind == "map":
            return len(self.labels) > 1 if self.exclusive is None else self.exclusive
        return self.kind != "multilabel"

    def blank(self, batch: int, device: torch.device | str | None = None) -> Tensor:
        """Zeros of the form of the logits, (batch, labels); of maps (batch, labels, 0, 0)."""
        pixels = (0, 0) if self.kind == "map" else ()
        return torch.zeros(batch, len(self.labels), *pixels, device=device)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits (..., n), of maps (..., n, height, width), into probabilities in [0, 1]."""
        return logits.softmax(self.axis) if self.one_holds else logits.sigmoid()

    def log_odds(self, logits: Tensor) -> Tensor:
        """The log-odds of each entry on its own, in nats, in the form of the logits."""
        if not self.one_holds:
            return logits
        log_p = logits.log_softmax(self.axis)
        return log_p - torch.log1p(-log_p.exp().clamp(max=1 - 1e-7))


class Outputs(Mapping[str, Tensor]):
    """The logits of every named output of a model, with what they mean.

    Args:
        logits: `{name: (batch, labels)}`; of maps (batch, labels, height, width).
        specs: `{name: Output}` with the same names.
    """

    def __init__(self, logits: Mapping[str, Tensor], specs: Mapping[str, Output]) -> None:
        self.logits = dict(logits)
        self.specs = dict(specs)

    def __getitem__(self, name: str) -> Tensor:
        return self.logits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.logits)

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def batch(self) -> int:
        """Number of images."""
        return next(iter(self.logits.values())).shape[0]

    def replace(self, **logits: Tensor) -> Outputs:
        """The same outputs with some logits replaced."""
        return Outputs({**self.logits, **logits}, self.specs)

    def take(self, rows: Tensor) -> Outputs:
        """The outputs of some of the images, by index (k,), in that order."""
        rows = indices(rows, self.batch)
        return Outputs({name: value[rows] for name, value in self.items()}, self.specs)

    @classmethod
    def cat(cls, parts: Sequence[Outputs]) -> Outputs:
        """The outputs of several batches as those of one, in their order."""
        logits = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return cls(logits, parts[0].specs)

    def as_returned(self) -> Tensor | dict[str, Tensor]:
        """The logits as users get them: one tensor (batch, labels), or a dict of them.

        It is one tensor where the model was wrapped with `labels`, so that its only output has
        no name of its own.
        """
        return self[SINGLE] if list(self) == [SINGLE] else dict(self)

    def probabilities(self) -> dict[str, Tensor]:
        """`{name: (batch, labels)}`, in [0, 1], of every output that has them (tokens don't)."""
        return {
            name: self.specs[name].probabilities(value)
            for name, value in self.items()
            if self.specs[name].kind != "tokens"
        }

    def detach(self) -> Outputs:
        """The same numbers, cut from the autograd graph."""
        return Outputs({name: value.detach() for name, value in self.items()}, self.specs)

    def clone(self) -> Outputs:
        """The same numbers in tensors of their own."""
        return Outputs({name: value.clone() for name, value in self.items()}, self.specs)

    def for_images(self, batch: int) -> Outputs:
        """The same outputs, if they have a row for each image.

        Raises:
            ModelError: They have more, or fewer.
        """
        for name, value in self.items():
            if len(value) != batch:
                raise ModelError(
                    f"Output {name!r} has {len(value)} rows for {batch} images. The first tensor "
                    "that the model is given counts as the images: put them first, in a tuple of "
                    "arguments or a dict of keyword arguments."
                )
        return self

    def checked(self) -> Outputs:
        """The same outputs, if they say something of every image.

        Raises:
            InputError: In every output, logits of an image are NaN or +inf, or all are -inf.
        """
        finite = [
            value.detach().logsumexp(1).isfinite().unsqueeze(-1).flatten(1).all(1)
            for name, value in self.items()
            if self.specs[name].kind != "tokens" and value.is_floating_point()
        ]
        said = torch.stack(finite).any(0) if finite else torch.ones(1, dtype=torch.bool)
        if not bool(said.all()):
            raise InputError(
                f"The model's logits of image {int((~said).nonzero()[0])} are NaN or infinite: "
                "look at the range of the image's values, and at the model's weights."
            )
        return self

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(value.shape)}" for name, value in self.items())
        return f"Outputs({shapes})"


def read(value: Any, specs: Mapping[str, Output]) -> Outputs:
    """Make `Outputs` of what a model returned.

    Raises:
        ModelError: An output isn't there, hasn't one entry per label, or holds no logits.
    """
    logits: dict[str, Tensor] = {}
    for name, spec in specs.items():
        tensor = pick(value, spec.select)
        if spec.select is None and not isinstance(tensor, Tensor):
            tensor = _called(name, value)
        if not isinstance(tensor, Tensor):
            raise ModelError(
                f"Output {name!r} is a {type(tensor).__name__}, not a tensor: say which part of "
                f"the model's return value it is, such as {_example(tensor, spec)}."
            )
        if spec.kind == "tokens":
            logits[name] = tensor
            continue
        if not tensor.is_floating_point() or not is_dense(tensor) or tensor.dtype.itemsize < 2:
            layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            raise ModelError(
                f"Output {name!r} is {tensor.dtype}, {layout}: logits are ordinary tensors of "
                "floating-point numbers of 16 bits or more, before any argmax or threshold."
            )
        pixels = ", height, width" if spec.kind == "map" else ""
        ndim = 4 if spec.kind == "map" else 2
        if tensor.ndim != ndim or tensor.shape[1] != len(spec.labels):
            hint = " For a label per pixel say kind='map'." if (tensor.ndim, ndim) == (4, 2) else ""
            raise ModelError(
                f"Output {name!r} is {tuple(tensor.shape)}, but {len(spec.labels)} labels need "
                f"(batch, {len(spec.labels)}{pixels}). Give one label per entry of the output."
                f"{hint}"
            )
        logits[name] = tensor
    return Outputs(logits, specs)


def _called(name: str, value: Any) -> Any:
    """The tensor of a model's return value that has a name; all of the value if none has."""
    named = value if isinstance(value, Mapping) else {}
    found = named.get(name, getattr(value, name, None))
    return found if isinstance(found, Tensor) else value


def _example(value: Any, spec: Output) -> str:
    """How a tensor of a model's return value is picked."""
    found = [(name, tensor) for name, tensor in named_tensors(value) if tensor.ndim in (2, 4)]
    if not found:
        return "Output(labels, select='key or index')"
    name, tensor = next((f for f in found if f[1].shape[1] == len(spec.labels)), found[0])
    path = f"{spec.select}.{name}" if spec.select else name
    kind = ", kind='map'" if tensor.ndim == 4 else ""
    return f"Output(labels{kind}, select={path!r}), which is {tuple(tensor.shape)}"
